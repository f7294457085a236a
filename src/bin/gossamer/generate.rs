//! `gossamer generate`.

use std::io::Write;
use std::time::Instant;

use anyhow::{Result, bail};
use gossamer::model::{Generator, Sampling};
use gossamer::pipelines::TextStream;
use gossamer::settings::{above, count, number, within};
use gossamer::terminal::Progress;

use crate::open::ModelArgs;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The text to continue
    #[arg(long, default_value = "", hide_default_value = true)]
    prompt: String,
    /// Read special tokens in the prompt, such as <|endoftext|>, as those tokens, not as text
    #[arg(long)]
    special: bool,
    /// Tokens to write at most
    #[arg(long, default_value_t = 64, value_parser = count::<usize>(1, 1_000_000_000))]
    max_new_tokens: usize,
    /// Divides the logits: below 1 probable tokens become more probable, above 1 less
    #[arg(long, default_value_t = 1.0, value_parser = number(within(0.0, 1e6)))]
    temperature: f64,
    /// Draw only from the most probable tokens that together have this probability
    #[arg(long, value_parser = number(above(0.0, 1.0)))]
    top_p: Option<f64>,
    /// Draw only from this many of the most probable tokens
    #[arg(long, value_parser = count::<usize>(1, 1 << 24))]
    top_k: Option<usize>,
    /// Always choose the most probable token
    #[arg(long, conflicts_with_all = ["temperature", "top_p", "top_k"])]
    greedy: bool,
    /// Seed of the draws; sample i has seed + i
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many texts to write
    #[arg(long, default_value_t = 1, value_parser = count::<u64>(1, 1_000_000))]
    num_samples: u64,
}

pub fn run(args: &Args) -> Result<()> {
    let sampling = Sampling {
        temperature: if args.greedy { 0.0 } else { args.temperature as f32 },
        top_k: args.top_k,
        top_p: args.top_p,
        max_new_tokens: args.max_new_tokens,
        ..Sampling::default()
    };
    sampling.validate()?;
    if sampling.temperature == 0.0 && (args.top_p.is_some() || args.top_k.is_some()) {
        bail!(
            "a temperature of 0 takes the most probable token, so that --top-p and --top-k change nothing: leave them away"
        );
    }
    let progress = Progress::new();
    progress.stage("opening the model");
    let opened = args.model.open()?;
    drop(progress);
    let tokenizer = opened.tokenizer()?;
    let prompt = opened.encode(&args.prompt, args.special)?;
    let mut out = std::io::stdout().lock();
    for sample in 0..args.num_samples {
        if args.num_samples > 1 {
            writeln!(out, "--- {} ---", sample + 1)?;
        }
        write!(out, "{}", args.prompt)?;
        out.flush()?;
        let (seed, end_of_text) = (args.seed.wrapping_add(sample), tokenizer.end_of_text());
        let (start, mut count, mut text) = (Instant::now(), 0, TextStream::new(tokenizer));
        let mut generator = Generator::new(&opened.model, &prompt, Sampling { seed, end_of_text, ..sampling })?;
        while let Some(token) = generator.next_token()? {
            count += 1;
            write!(out, "{}", text.push(token))?;
            out.flush()?;
        }
        writeln!(out, "{}", text.finish())?;
        tracing::info!("{count} tokens, {:.1} tokens/s", f64::from(count) / start.elapsed().as_secs_f64());
    }
    Ok(())
}

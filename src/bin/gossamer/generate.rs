//! `gossamer generate`.

use std::io::Write;
use std::time::Instant;

use anyhow::{Result, bail};
use gossamer::model::{Generator, Sampling};
use gossamer::settings::{above, count, number, within};
use gossamer::terminal::Progress;

use crate::open::ModelArgs;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The text to go on from
    #[arg(long, default_value = "", hide_default_value = true)]
    prompt: String,
    /// Read special tokens in the prompt, such as <|endoftext|>, as those tokens, not as text
    #[arg(long)]
    special: bool,
    /// Tokens to write at most
    #[arg(long, default_value_t = 64, value_parser = count::<usize>(1, 1_000_000_000))]
    max_new_tokens: usize,
    /// Divides the logits: below 1 it plays safe, above 1 it wanders
    #[arg(long, default_value_t = 1.0, value_parser = number(within(0.0, 1e6)))]
    temperature: f64,
    /// Draw only from the most probable tokens that together have this probability
    #[arg(long, value_parser = number(above(0.0, 1.0)))]
    top_p: Option<f64>,
    /// Draw only from this many of the most probable tokens
    #[arg(long, value_parser = count::<usize>(1, 1 << 24))]
    top_k: Option<usize>,
    /// Always take the most probable token
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
    let start = Instant::now();
    let progress = Progress::new();
    progress.stage("opening the model");
    let opened = args.model.open()?;
    drop(progress);
    tracing::debug!("loaded in {:.2} s", start.elapsed().as_secs_f64());
    let tokenizer = opened.tokenizer()?;
    let prompt = opened.encode(&args.prompt, args.special)?;
    let mut out = std::io::stdout().lock();
    for sample in 0..args.num_samples {
        if args.num_samples > 1 {
            writeln!(out, "--- {} ---", sample + 1)?;
        }
        out.write_all(args.prompt.as_bytes())?;
        out.flush()?;
        let seed = args.seed.wrapping_add(sample);
        let sampling = Sampling { seed, end_of_text: tokenizer.end_of_text(), ..sampling };
        let (start, mut count) = (Instant::now(), 0);
        let mut generator = Generator::new(&opened.model, &prompt, sampling)?;
        let mut waiting = Vec::new();
        while let Some(token) = generator.next_token()? {
            count += 1;
            waiting.extend(tokenizer.token_bytes(token).unwrap_or_else(|| opened.token_text(token).into_bytes()));
            write_whole_characters(&mut waiting, &mut out)?;
        }
        out.write_all(String::from_utf8_lossy(&waiting).as_bytes())?;
        writeln!(out)?;
        tracing::info!("{count} tokens, {:.1} tokens/s", f64::from(count) / start.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Writes what is complete of `bytes`: a character may be spread over several tokens.
fn write_whole_characters(bytes: &mut Vec<u8>, out: &mut impl Write) -> Result<()> {
    let begun = |&more: &usize| {
        let end = bytes.len().checked_sub(more).map(|start| std::str::from_utf8(&bytes[start..]));
        matches!(end, Some(Err(e)) if e.error_len().is_none() && e.valid_up_to() == 0)
    };
    // What can no longer become a character is shown as such.
    let whole = bytes.len() - (1..4).find(begun).unwrap_or(0);
    let ready: Vec<u8> = bytes.drain(..whole).collect();
    out.write_all(String::from_utf8_lossy(&ready).as_bytes())?;
    out.flush()?;
    Ok(())
}

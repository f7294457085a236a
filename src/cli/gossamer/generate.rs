//! `gossamer generate`.

use anyhow::Result;
use crate::model::Sampling;
use crate::pipelines::{GenerateRequest, generate};
use crate::settings::{above, count, number, within};
use crate::terminal::Progress;

use super::open::{IdsArgs, ModelArgs};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The text to continue
    #[arg(long, default_value = "", hide_default_value = true)]
    prompt: String,
    #[command(flatten)]
    ids: IdsArgs,
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
        seed: args.seed,
        ..Sampling::default()
    };
    let request = GenerateRequest { prompt: args.ids.prompt(&args.prompt, args.special), sampling, samples: args.num_samples };
    request.validate()?;
    let model = args.model.open(&Progress::new())?;
    Ok(generate(&model, &request, &mut std::io::stdout().lock())?)
}

//! `gossamer run`.

use std::path::PathBuf;

use anyhow::Result;
use crate::model::Edit;
use crate::pipelines::{PredictRequest, Prompt, predict};
use crate::settings::count;

use super::open::{IdsArgs, JsonArgs, ModelArgs, report};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The text whose next token is predicted
    #[arg(long, required_unless_present = "ids", default_value = "", hide_default_value = true)]
    prompt: String,
    #[command(flatten)]
    ids: IdsArgs,
    /// Read special tokens in prompts, such as <|endoftext|>, as those tokens, not as text
    #[arg(long)]
    special: bool,
    /// An intervention: SITE[CHANNELS]@POSITIONS=VALUE, also += and *=, =mean and =patch; may be
    /// repeated. Channels are numbers, ranges a:b, heads h2 and their channels h2.5; positions
    /// count from 0, or from the end below 0; without either, all of them. `*.` in front stands for
    /// every layer
    #[arg(long = "set", value_name = "EDIT")]
    set: Vec<Edit>,
    /// The prompt whose run =patch takes from
    #[arg(long, value_name = "PROMPT")]
    patch_from: Option<String>,
    /// Means for =mean, as `gossamer record --mean` writes them [default: those over generated
    /// Python]
    #[arg(long, value_name = "FILE")]
    means: Option<PathBuf>,
    /// A circuit of the model: also predict with its nodes alone (circuit) and without them
    /// (complement), all other nodes at the means next to its file
    #[arg(long, value_name = "FILE")]
    circuit: Option<PathBuf>,
    /// How many tokens to show
    #[arg(long, default_value_t = 10, value_parser = count::<usize>(1, 1 << 24))]
    top: usize,
    #[command(flatten)]
    output: JsonArgs,
}

pub fn run(args: &Args) -> Result<()> {
    let request = PredictRequest {
        prompt: args.ids.prompt(&args.prompt, args.special),
        edits: &args.set,
        patch_from: args.patch_from.as_deref().map(|text| Prompt::Text { text, special: args.special }),
        means: args.means.as_deref(),
        circuit: args.circuit.as_deref(),
    };
    request.validate()?;
    report(&[], args.output.json, |progress| {
        let model = args.model.open(progress)?;
        progress.stage("running the prompt");
        Ok(predict(&model, &request)?.report(args.top, &model)?)
    })
}

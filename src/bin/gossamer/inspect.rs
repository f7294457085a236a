//! `gossamer inspect`.

use std::io::Write;

use anyhow::Result;
use gossamer::device::Device;
use gossamer::formats::ModelFiles;
use gossamer::model::{Entry, LayerReport, Report, WeightFormat, inspect};
use gossamer::settings::count;
use gossamer::train::memory::human_bytes;
use serde_json::json;

use crate::open::SourceArgs;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: SourceArgs,
    /// How many of the largest weights of each matrix to list
    #[arg(long, default_value_t = 3, value_parser = count::<usize>(0, 65_536))]
    largest: usize,
    /// Load the model onto this device, too, and say what it takes there: auto, cpu, gpu, gpu:INDEX or gpu:PART-OF-A-NAME
    #[arg(long)]
    device: Option<String>,
    /// As JSON, with everything
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let files = args.source.files()?;
    let loaded = args.device.as_deref().map(|name| load(&files, name)).transpose()?;
    let report = inspect(&files.config, files.weights.as_ref(), args.largest)?;
    let vocabulary = args.source.tokenizer_of(&files)?.map(|tokenizer| tokenizer.vocab_size());
    let mut out = std::io::stdout().lock();
    if args.json {
        let all =
            json!({ "config": files.config, "tokenizer_vocab_size": vocabulary, "report": report, "device": loaded });
        writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
        return Ok(());
    }
    let c = &files.config;
    writeln!(
        out,
        "{} layers, d_model {}, {} heads of {}, d_mlp {}, vocabulary {}, block_size {}",
        c.n_layer,
        c.d_model,
        c.n_head,
        c.head_width(),
        c.mlp_width(),
        c.vocab_size,
        c.block_size
    )?;
    let norm = if c.rms_norm { "RMSNorm" } else { "LayerNorm" };
    let sparse = c.afrac.map_or("no AbsTopK".into(), |f| format!("AbsTopK {f} at {}", c.afrac_loctypes.0));
    writeln!(out, "{norm}, {:?}, {sparse}", c.activation_type)?;
    writeln!(out, "tokenizer: {}", vocabulary_verdict(vocabulary, c.vocab_size))?;
    if let Some(loaded) = loaded {
        writeln!(out, "{loaded}")?;
    }
    if let Err(error) = files.check_tied() {
        writeln!(out, "{error}")?;
    }
    write_tensors(&report, &mut out)?;
    let broken: Vec<_> = report.tensors.iter().filter(|t| t.not_finite > 0).map(|t| t.name.as_str()).collect();
    if !broken.is_empty() {
        writeln!(out, "\nnot finite, so that no answer of this model is right: {}", broken.join(", "))?;
    }
    writeln!(
        out,
        "\n{} of {} matrix weights are not zero (1 in {:.1}); {} of {} parameters in all",
        report.matrix_nonzeros,
        report.matrix_parameters,
        report.matrix_parameters as f64 / report.matrix_nonzeros.max(1) as f64,
        report.nonzeros,
        report.parameters
    )?;
    writeln!(out, "\ndead ends")?;
    for (i, layer) in report.layers.iter().enumerate() {
        write_layer(i, layer, &mut out)?;
    }
    writeln!(out, "  residual stream: never written {}", list(&report.unwritten_channels))?;
    writeln!(out, "  residual stream: never read {}", list(&report.unread_channels))?;
    Ok(())
}

/// Loads the model as the other commands do, and says what it takes.
fn load(files: &ModelFiles, device: &str) -> Result<String> {
    let device = Device::open(device)?;
    let _model = files.load(WeightFormat::Sparse, &device)?;
    Ok(format!("{} on {}", human_bytes(device.allocated()), device.describe()))
}

fn vocabulary_verdict(tokenizer: Option<usize>, model: usize) -> String {
    match tokenizer {
        None => "none beside the model".into(),
        Some(n) if n == model => format!("{n} entries, as the model"),
        Some(n) if n < model => format!("{n} entries; the model has {} more, which it never reads", model - n),
        Some(n) => format!("{n} entries, {} more than the model: it is not this model's", n - model),
    }
}

fn write_tensors(report: &Report, out: &mut impl Write) -> Result<()> {
    let width = report.tensors.iter().map(|t| t.name.len()).max().unwrap_or(0);
    writeln!(
        out,
        "\n{:width$}  {:>14}  {:>11}  {:>8}  {:>9}  largest",
        "parameter", "shape", "nonzeros", "density", "rms"
    )?;
    for t in &report.tensors {
        let shape = t.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("×");
        let place = |index: &[usize]| index.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let largest: Vec<_> = t.largest.iter().map(|e| format!("{:+.3} [{}]", e.value, place(&e.index))).collect();
        write!(out, "{:width$}  {shape:>14}  {:>11}  {:>8.5}  {:>9.4}", t.name, t.nonzeros, t.density, t.rms)?;
        writeln!(out, "  {}", largest.join("  "))?;
        if let Some(Entry { index, value }) = &t.first_not_finite {
            let (count, place) = (t.not_finite, place(index));
            writeln!(out, "{:width$}  not finite: {count} entries, the first of them {value} [{place}]", "")?;
        }
    }
    Ok(())
}

fn write_layer(i: usize, layer: &LayerReport, out: &mut impl Write) -> Result<()> {
    writeln!(out, "  layer {i}: neurons without input {}", list(&layer.neurons_without_input))?;
    writeln!(out, "           neurons without output {}", list(&layer.neurons_without_output))?;
    writeln!(out, "           query-key channels {}", list(&layer.dead_query_key_channels))?;
    writeln!(out, "           value channels {}", list(&layer.dead_value_channels))?;
    Ok(())
}

/// How many there are, and the first few.
fn list(channels: &[usize]) -> String {
    const SHOWN: usize = 12;
    if channels.is_empty() {
        return "0".into();
    }
    let mut shown: Vec<_> = channels.iter().take(SHOWN).map(ToString::to_string).collect();
    if channels.len() > SHOWN {
        shown.push("…".into());
    }
    format!("{} ({})", channels.len(), shown.join(" "))
}

//! `gossamer report`.

use std::path::PathBuf;

use anyhow::Result;
use crate::circuits::prune::MAX_PAIRS;
use crate::device::Device;
use crate::files::write_atomic;
use crate::model::WeightFormat;
use crate::pipelines::{RunReport, run_report};
use crate::report::Report;
use crate::settings::{count, number, within};
use crate::train::checkpoint;
use crate::Error;

use super::open::{DeviceArgs, LoadArgs, report};

#[derive(clap::Args)]
pub struct Args {
    /// The run's folder, or one with a model, such as runs/example
    run: PathBuf,
    /// The page to write [default: RUN/report.html]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Held-out pairs of each built-in task; 0 leaves the tasks out
    #[arg(long, default_value_t = 64, value_parser = count::<usize>(0, MAX_PAIRS))]
    pairs: usize,
    /// Show at first only nodes and edges of circuits whose ablation changes the task loss by this
    /// much or more [default: all]
    #[arg(long, value_name = "NATS", value_parser = number(within(0.0, 1e6)))]
    threshold: Option<f64>,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(args: &Args) -> Result<()> {
    let Args { run, pairs, threshold, load, device, .. } = args;
    let out = args.out.clone().unwrap_or_else(|| run.join("report.html"));
    std::fs::read_dir(run).map_err(|e| Error::io(run, e))?;
    report(&[Some(&out)], false, |progress| {
        let begun = run.join("config.toml").exists() && !run.join("config.json").exists();
        let model = if begun && checkpoint::list(run)?.is_empty() {
            progress.say("note: the run has no checkpoint yet");
            None
        } else {
            progress.stage("opening the model");
            let files = load.files(&run.to_string_lossy())?;
            let model = files.pretrained(WeightFormat::Sparse, &Device::open(&device.device)?)?;
            Some((files, model))
        };
        progress.stage("reading the run");
        let page = run_report(&RunReport {
            folder: run,
            model: model.as_ref().map(|(files, model)| (files, model)),
            pairs: *pairs,
            threshold: *threshold,
            observer: &progress.observer(),
            note: &|note| progress.say(format!("note: {note}")),
        })?;
        write_atomic(&out, |file| file.write_all(page.as_bytes()).map_err(|e| Error::io(&out, e)))?;
        Ok(Report::new().note(out.display().to_string()))
    })
}

//! `gossamer plot`.

use std::path::PathBuf;

use anyhow::Result;
use crate::chart::picture_file;
use crate::pipelines::{PlotRequest, PlotX, plot};

use super::open::{JsonArgs, report};

#[derive(clap::Args)]
pub struct Args {
    /// Folders of runs, finished or not; each is a curve
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// What to draw, by its name in metrics.jsonl; val is validation_loss; may be repeated
    #[arg(long, value_name = "NAME", default_values_t = [String::from("loss")])]
    metric: Vec<String>,
    /// What to draw it over
    #[arg(long, value_enum, default_value = "step")]
    x: PlotX,
    /// A logarithmic horizontal axis
    #[arg(long)]
    log_x: bool,
    /// A logarithmic vertical axis
    #[arg(long)]
    log_y: bool,
    /// Draw runs that differ only in their seed as one curve: their mean, with the least and most
    /// of them around it
    #[arg(long)]
    group_seeds: bool,
    /// The file to write (.png, .svg or .pdf)
    #[arg(long, value_name = "FILE", value_parser = picture_file)]
    out: PathBuf,
    #[command(flatten)]
    output: JsonArgs,
}

pub fn run(args: &Args) -> Result<()> {
    let Args { log_x, log_y, group_seeds, x, .. } = *args;
    let request = PlotRequest { runs: &args.runs, metrics: &args.metric, x, log_x, log_y, group_seeds };
    report(&[Some(&args.out)], args.output.json, |_| {
        let plot = plot(&request)?;
        plot.chart.save(&args.out)?;
        Ok(plot.report().paragraph(args.out.display().to_string()))
    })
}

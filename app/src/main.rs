//! `explorer`: circuits in a window.
#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use eframe::NativeOptions;
use eframe::egui::{ViewportBuilder, vec2};
use gossamer::terminal;
use gossamer_explorer::explorer::{Explorer, example};

/// Draws circuits of weight-sparse transformers
#[derive(Parser)]
#[command(version)]
struct Args {
    /// A run, a model, a folder with circuits, a circuit file, or a published viz_data.pt; the
    /// built-in example without it
    path: Option<PathBuf>,
}

fn main() -> ExitCode {
    match terminal::parse(std::env::args_os(), |_| None) {
        Ok(args) => terminal::finish(show(args)),
        Err(code) => code,
    }
}

fn show(args: Args) -> anyhow::Result<()> {
    let viewport = ViewportBuilder::default()
        .with_title("gossamer")
        .with_app_id("gossamer")
        .with_inner_size(vec2(1280.0, 720.0))
        .with_min_inner_size(vec2(960.0, 600.0))
        .with_drag_and_drop(true);
    let options = NativeOptions { viewport, ..NativeOptions::default() };
    // If it cannot be written, there is still the circuit alone.
    let path = args.path.or_else(example);
    let run = eframe::run_native(
        "gossamer",
        options,
        Box::new(move |context| Ok(Box::new(Explorer::new(&context.egui_ctx, context.storage, path.as_deref())))),
    );
    run.map_err(|e| anyhow::anyhow!("no window could be opened: {e}. A screen and a graphics driver (Vulkan, Metal, DX12 or OpenGL) are needed; without them, `gossamer circuit export` draws circuits into files"))
}

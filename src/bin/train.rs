//! The headless trainer. Under the name `gossamer` it is that program.

use std::ffi::OsString;
use std::path::Path;

fn main() -> std::process::ExitCode {
    gossamer::terminal::without_desktop();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let name = arguments.first().and_then(|name| Path::new(name).file_stem());
    if name.is_some_and(|name| name == "gossamer") {
        return gossamer::cli::gossamer::main(arguments, gossamer::cli::programs());
    }
    gossamer::cli::train::main(arguments)
}

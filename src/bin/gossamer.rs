//! Every command but training.

fn main() -> std::process::ExitCode {
    gossamer::terminal::without_desktop();
    // Jobs of a sweep run the programs next to this one.
    let folder = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.to_path_buf()));
    gossamer::cli::gossamer::main(std::env::args_os(), folder.unwrap_or_default())
}

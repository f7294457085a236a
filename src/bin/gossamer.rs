//! Every command but training.

fn main() -> std::process::ExitCode {
    gossamer::terminal::without_desktop();
    gossamer::cli::gossamer::main(std::env::args_os(), gossamer::cli::programs())
}

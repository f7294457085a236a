//! The headless trainer.

fn main() -> std::process::ExitCode {
    gossamer::terminal::without_desktop();
    gossamer::cli::train::main(std::env::args_os())
}

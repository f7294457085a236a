//! What the binaries share: lines that cannot fail, the log, [signals], and [progress].
//!
//! A terminal may go away and a disk may be full while work goes on that is worth more than its messages. So the macros of the standard
//! library, which panic where a line cannot be written, are not used outside of tests.

pub mod progress;
pub mod signals;

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::files::is_stdout;
pub use progress::Progress;

/// Writes a message to standard error, in one piece. It is lost where that cannot be written.
pub fn say(line: impl Display) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Writes a line about work whose result is elsewhere to standard output. It is lost where that cannot be written. A result that is itself
/// a text is written with `writeln!`, whose error ends the command.
pub fn print(line: impl Display) {
    let _ = io::stdout().write_all(format!("{line}\n").as_bytes());
}

/// Shows log messages from the level `default` on standard error, or those that `RUST_LOG` asks for.
pub fn start_log(default: &str) {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| default.into()))
        .with_writer(|| Unfailing(io::stderr()))
        .with_ansi(io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .init();
}

/// Keeps Mesa's Vulkan layer that asks the desktop which adapter is its own from looking for one where there is none: it complains on standard
/// error. To be called first of all, while there is no other thread.
pub fn without_desktop() {
    const DESKTOP: &str = "XDG_RUNTIME_DIR";
    const CHOICES: [&str; 2] = ["NODEVICE_SELECT", "MESA_VK_DEVICE_SELECT"];
    if std::env::var_os(DESKTOP).is_none() && CHOICES.iter().all(|name| std::env::var_os(name).is_none()) {
        // SAFETY: no other thread reads the environment, since there is none.
        unsafe { std::env::set_var(CHOICES[0], "1") };
    }
}

/// The arguments of the command line, or the code to exit with after help, the version, or what is wrong with them was written, with
/// what `advice` has to add to that.
///
/// # Errors
/// The exit code: 0 for help and version, unless they could not be written.
pub fn parse<C: Parser>(advice: impl FnOnce(&clap::Error) -> Option<String>) -> Result<C, ExitCode> {
    C::try_parse().map_err(|wrong| {
        let printed = wrong.print().and_then(|()| io::stdout().flush());
        advice(&wrong).into_iter().for_each(say);
        match printed {
            Err(error) if !wrong.use_stderr() => exit_code(&unwritten(error)),
            _ => ExitCode::from(u8::try_from(wrong.exit_code()).unwrap_or(2)),
        }
    })
}

/// Ends a command whose result goes to standard output: writes what is buffered, and prints an error. After a signal, the exit
/// code is 128 plus the signal's number.
pub fn finish(result: anyhow::Result<()>) -> ExitCode {
    if let Some(code) = signals::exit_code() {
        let stopped = |error: &anyhow::Error| matches!(error.downcast_ref(), Some(crate::Error::Stopped));
        if let Some(error) = result.err().filter(|error| !stopped(error)) {
            say(format_args!("error: {}", crate::error::explain(error.as_ref())));
        }
        return ExitCode::from(code);
    }
    match result.and_then(|()| Ok(io::stdout().flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        // One that nobody says more about is that of a `writeln!`.
        Err(error) => exit_code(&as_unwritten(error)),
    }
}

/// Tells a result that could not be written to standard output from other errors, also where a file named there was the result.
fn as_unwritten(error: anyhow::Error) -> anyhow::Error {
    // An error that somebody says more about is of something else.
    let outermost = error.chain().next();
    if outermost.is_some_and(|error| error.is::<io::Error>()) {
        return error.downcast::<io::Error>().map_or_else(|other| other, unwritten);
    }
    match outermost.and_then(|error| error.downcast_ref()) {
        Some(crate::Error::Io { path, .. }) if is_stdout(path) => match error.downcast() {
            Ok(crate::Error::Io { source, .. }) => unwritten(source),
            Ok(other) => other.into(),
            Err(error) => error,
        },
        _ => error,
    }
}

/// Says what went wrong. Whoever closed the pipe has seen enough, as `head` does: that is no failure.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    let source = error.downcast_ref::<Unwritten>();
    if source.is_some_and(|Unwritten(source)| source.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    say(format_args!("error: {}", crate::error::explain(error.as_ref())));
    ExitCode::FAILURE
}

/// A result that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("the result could not be written to standard output: {0}")]
struct Unwritten(io::Error);

fn unwritten(error: io::Error) -> anyhow::Error {
    Unwritten(error).into()
}

/// A writer whose errors nobody hears of: the log's own handling of them panics.
struct Unfailing<W>(W);

impl<W: Write> Write for Unfailing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

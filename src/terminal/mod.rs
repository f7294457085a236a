//! Parts that the binaries share: messages that cannot fail, the log, [signals], and [progress].
//!
//! A terminal may close and a disk may be full during work that is worth more than its messages.
//! The macros of the standard library panic then, so only tests use them.

mod output;
pub mod progress;
pub mod signals;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::files::is_stdout;
pub use output::{Lines, screen};
pub use progress::Progress;

/// Writes a message to standard error, in one piece. Errors are ignored.
pub fn say(line: impl Display) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Writes a line about work to standard output. Errors are ignored. A result is written with
/// `writeln!` instead, whose error ends the command.
pub fn print(line: impl Display) {
    let _ = io::stdout().write_all(format!("{line}\n").as_bytes());
}

/// Shows log messages from the level `default` on standard error, or those that `RUST_LOG` selects.
pub fn start_log(default: &str) {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| default.into()))
        .with_writer(|| Unfailing(io::stderr()))
        .with_ansi(io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .init();
}

/// Keeps Mesa's Vulkan layer for device selection from connecting to a desktop where there is none,
/// which would print errors. Must be called first, while there is no other thread.
pub fn without_desktop() {
    const DESKTOP: &str = "XDG_RUNTIME_DIR";
    const CHOICES: [&str; 2] = ["NODEVICE_SELECT", "MESA_VK_DEVICE_SELECT"];
    if std::env::var_os(DESKTOP).is_none() && CHOICES.iter().all(|name| std::env::var_os(name).is_none()) {
        // SAFETY: no other thread reads the environment, since there is none.
        unsafe { std::env::set_var(CHOICES[0], "1") };
    }
}

/// The command line `args` as arguments, or the exit code after help, the version or an error message
/// was printed, followed by `advice`.
///
/// # Errors
/// Returns the exit code: 0 for help and version, unless they could not be written.
pub fn parse<C: Parser>(
    args: impl IntoIterator<Item = OsString>,
    advice: impl FnOnce(&clap::Error) -> Option<String>,
) -> Result<C, ExitCode> {
    C::try_parse_from(args).map_err(|wrong| {
        let printed = wrong.print().and_then(|()| io::stdout().flush());
        advice(&wrong).into_iter().for_each(say);
        match printed {
            Err(error) if !wrong.use_stderr() => exit_code(&unwritten(error)),
            _ => ExitCode::from(u8::try_from(wrong.exit_code()).unwrap_or(2)),
        }
    })
}

/// Ends a command whose result goes to standard output: writes what is buffered, and prints an
/// error. After a signal, the exit code is 128 plus the signal's number.
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
        Err(error) => exit_code(&as_unwritten(error)),
    }
}

/// Recognizes a result that could not be written to standard output, also where a file named there
/// was the result.
fn as_unwritten(error: anyhow::Error) -> anyhow::Error {
    // An error of `writeln!` has no context.
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

/// Prints the error. A closed pipe is no failure: its reader, such as `head`, has enough.
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

/// A writer without errors: the log panics at one.
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

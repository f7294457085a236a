use std::io::{self, Write};
use std::path::Path;

use super::Progress;
use crate::files::is_stdout;
use crate::{Error, Result};

/// Standard output, or standard error if one of the `files` is standard output, which must then hold nothing else.
///
/// # Errors
/// Returns [`Error::Request`] if two of the files are standard output.
pub fn screen(files: &[Option<&Path>]) -> Result<Box<dyn Write>> {
    match files.iter().flatten().filter(|file| is_stdout(file)).count() {
        0 => Ok(Box::new(io::stdout())),
        1 => Ok(Box::new(io::stderr())),
        n => {
            Err(Error::Request(format!("{n} files are to be standard output, which can be only one: name the others")))
        }
    }
}

/// Prints lines while progress is shown. Work continues where they cannot be written.
pub struct Lines<'a> {
    progress: &'a Progress,
    out: Box<dyn Write>,
    result: io::Result<()>,
}

impl<'a> Lines<'a> {
    /// Prints to `out`.
    pub fn new(progress: &'a Progress, out: Box<dyn Write>) -> Self {
        Self { progress, out, result: Ok(()) }
    }

    /// Prints a line.
    pub fn print(&mut self, line: &str) {
        let written = self.progress.aside(|| writeln!(self.out, "{line}"));
        if self.result.is_ok() {
            self.result = written;
        }
    }

    /// Ends the output.
    ///
    /// # Errors
    /// Returns the first error of writing a line.
    pub fn finish(mut self) -> io::Result<()> {
        self.result.and_then(|()| self.out.flush())
    }
}

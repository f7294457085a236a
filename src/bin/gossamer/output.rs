//! Where commands say what they have to say.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Result, bail};
use gossamer::files::is_stdout;

/// Standard output, or standard error where one of the `files` to write is standard output, which must then hold nothing else.
pub fn screen(files: &[Option<&Path>]) -> Result<Box<dyn Write>> {
    match files.iter().flatten().filter(|file| is_stdout(file)).count() {
        0 => Ok(Box::new(io::stdout())),
        1 => Ok(Box::new(io::stderr())),
        n => bail!("{n} files are to be standard output, which can be only one: name the others"),
    }
}

//! A job done.

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::Job;
use crate::files::{create_folder, write_atomic};
use crate::{Error, Result};

/// How a job went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It had been done before.
    Before,
    /// It was done.
    Now,
    /// The command failed; its file `stderr` says how.
    Failed,
}

/// What is left behind by a job that is done.
#[derive(Serialize, Deserialize)]
struct Mark {
    command: Vec<String>,
}

impl Job {
    /// Whether it was done.
    ///
    /// # Errors
    /// [`Error::File`] if another job was done in its folder, [`Error::Io`] if that cannot be seen.
    pub fn is_done(&self) -> Result<bool> {
        let path = self.file("json");
        if !path.exists() {
            return Ok(false);
        }
        let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let mark: Mark = serde_json::from_str(&text).map_err(|e| Error::file(&path, e.to_string()))?;
        match mark.command == self.command {
            true => Ok(true),
            false => Err(Error::file(
                &path,
                format!(
                    "was done with another command, {:?}; remove this file to do it again, or give the sweep another folder",
                    mark.command
                ),
            )),
        }
    }

    /// Does it, unless it was done before. The programs `train` and `gossamer` are taken from the folder `programs` if they are
    /// there. A training that was cut off goes on from its last checkpoint. A job that another process is at is waited for.
    ///
    /// # Errors
    /// [`Error::Io`] naming the program that does not start or the file that cannot be written; those of [`Job::is_done`].
    pub fn run(&self, programs: &Path) -> Result<Done> {
        create_folder(&self.jobs)?;
        let path = self.file("lock");
        let lock = File::create(&path).map_err(|e| Error::io(&path, e))?;
        match lock.lock() {
            // Some file systems have none: there, nobody notices two of one shard.
            Err(e) if e.kind() != std::io::ErrorKind::Unsupported => return Err(Error::io(&path, e)),
            _ => {}
        }
        if self.is_done()? {
            return Ok(Done::Before);
        }
        let name = &self.command[0];
        let near = programs.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
        let mut command = Command::new(if near.exists() { near.as_os_str() } else { name.as_ref() });
        match name == "train" && self.out.join("config.toml").exists() {
            true => command.arg("--resume").arg(&self.out),
            false => command.args(&self.command[1..]),
        };
        let (stdout, stderr) = (self.file("stdout"), self.file("stderr"));
        let printed = File::create(&stdout).map_err(|e| Error::io(&stdout, e))?;
        // What went wrong before may help to understand what goes wrong again.
        let log = OpenOptions::new().create(true).append(true).open(&stderr).map_err(|e| Error::io(&stderr, e))?;
        // The command holds the lock too, as its standard input: one that outlives this process is not disturbed.
        let status = command.stdin(Stdio::from(lock)).stdout(printed).stderr(log).status();
        if !status.map_err(|e| Error::io(name, e))?.success() {
            return Ok(Done::Failed);
        }
        let path = self.file("json");
        let mark = serde_json::to_string_pretty(&Mark { command: self.command.clone() });
        let mark = mark.map_err(|e| Error::file(&path, e.to_string()))?;
        write_atomic(&path, |out| writeln!(out, "{mark}").map_err(|e| Error::io(&path, e)))?;
        Ok(Done::Now)
    }
}

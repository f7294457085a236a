use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};

use serde::{Deserialize, Serialize};

use super::{Job, program};
use crate::files::{create_folder, read_text, write_atomic};
use crate::terminal::signals::FORWARDED;
use crate::train::checkpoint;
use crate::train::config::RunConfig;
use crate::{Error, Result};

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobOutcome {
    /// It was already done.
    DoneBefore,
    /// It is done now.
    Done,
    /// The command failed; its file `stderr` says how.
    Failed,
    /// A signal ended it. A training run saves a checkpoint then.
    Stopped,
}

/// The job's file `json`, written before it starts and again when it is done.
#[derive(Serialize, Deserialize)]
struct Mark {
    command: Vec<String>,
    done: bool,
}

/// Whether SIGHUP, SIGINT or SIGTERM ended a process.
fn was_signalled(status: ExitStatus) -> bool {
    #[cfg(unix)]
    if matches!(std::os::unix::process::ExitStatusExt::signal(&status), Some(1 | 2 | 15)) {
        return true;
    }
    matches!(status.code(), Some(129 | 130 | 143))
}

impl Job {
    /// Whether it is done.
    ///
    /// # Errors
    /// Returns [`Error::File`] if another job was started in its folder, and [`Error::Io`].
    pub fn is_done(&self) -> Result<bool> {
        let path = self.file("json");
        if !path.exists() {
            return Ok(false);
        }
        let text = read_text(&path)?;
        let mark: Mark = serde_json::from_str(&text).map_err(|e| Error::file(&path, e.to_string()))?;
        // A command that failed before it wrote anything may be replaced.
        if mark.command != self.command && (mark.done || self.out.exists()) {
            let message = format!(
                "was started with another command, {:?}; to run it again, remove this file and the folder {}, or give the sweep \
                 another `folder`",
                mark.command,
                self.out.display()
            );
            return Err(Error::file(&path, message));
        }
        Ok(mark.done)
    }

    /// Runs the job, unless it is done. The programs `train` and `gossamer` are taken from the folder `programs` if they are
    /// there. An interrupted training run continues from its last checkpoint, under a launcher too. If another process runs
    /// the job, waits for it. `wait` receives the job's process.
    ///
    /// # Errors
    /// Returns [`Error::Io`] naming the program that does not start or the file that cannot be written, [`Error::File`] for a
    /// run in the job's folder that the sweep did not start, and the errors of [`Job::is_done`].
    pub fn run(&self, programs: &Path, wait: impl FnOnce(Child) -> io::Result<ExitStatus>) -> Result<JobOutcome> {
        create_folder(&self.jobs)?;
        let lock = self.lock()?;
        if self.is_done()? {
            return Ok(JobOutcome::DoneBefore);
        }
        let (at, settings) = (program::training(&self.command), self.out.join("config.toml"));
        let words = match at {
            Some(at) if settings.exists() => {
                if !self.file("json").exists() {
                    let message = "belongs to a run that this sweep did not start; remove its folder, or give the sweep another `folder`";
                    return Err(Error::file(&settings, message));
                }
                let out = self.out.to_str().map(String::from);
                self.command[..=at].iter().cloned().chain(["--resume".into()]).chain(out).collect()
            }
            _ => self.command.clone(),
        };
        let mut command = program::command(&words, programs);
        let (stdout, stderr) = (self.file("stdout"), self.file("stderr"));
        let printed = File::create(&stdout).map_err(|e| Error::io(&stdout, e))?;
        // Earlier errors may explain a later one.
        let log = OpenOptions::new().create(true).append(true).open(&stderr).map_err(|e| Error::io(&stderr, e))?;
        self.mark(false)?;
        // The command's standard input is the lock: while it outlives this process, it keeps the lock.
        command.stdin(Stdio::from(lock)).stdout(printed).stderr(log).env(FORWARDED, "1");
        let status = command.spawn().and_then(wait).map_err(|e| Error::io(&self.command[0], e))?;
        if !status.success() {
            return Ok(if was_signalled(status) { JobOutcome::Stopped } else { JobOutcome::Failed });
        }
        // A training run that was asked to stop exits with success.
        if at.is_some() && settings.exists() {
            let last = checkpoint::list(&self.out)?.pop().map_or(0, |(step, _)| step);
            if last < RunConfig::load(&settings)?.train.steps {
                return Ok(JobOutcome::Stopped);
            }
        }
        self.mark(true)?;
        Ok(JobOutcome::Done)
    }

    fn mark(&self, done: bool) -> Result<()> {
        let path = self.file("json");
        let mark = serde_json::to_string_pretty(&Mark { command: self.command.clone(), done });
        let mark = mark.map_err(|e| Error::file(&path, e.to_string()))?;
        write_atomic(&path, |out| writeln!(out, "{mark}").map_err(|e| Error::io(&path, e)))
    }

    /// The job's lock, held until the file is closed in all processes. Waits for another process that holds it.
    fn lock(&self) -> Result<File> {
        let path = self.file("lock");
        // As standard input of the command it must be empty.
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|e| Error::io(&path, e))?;
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            tracing::info!("{}: another process runs it; waiting for that process to end", self.name);
            // Some file systems have no locks. There, two processes may run one job.
            let _ = file.lock();
        }
        Ok(file)
    }
}

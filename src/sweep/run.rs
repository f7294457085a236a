use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{JobOutcome, Shard, Sweep};
use crate::{Error, Result};

/// How the jobs of a shard ended.
#[derive(Clone, Debug, Default)]
pub struct SweepResult {
    /// The number of jobs that belong to the shard.
    pub jobs: usize,
    /// The logs of the jobs that failed.
    pub failed: Vec<PathBuf>,
    /// Whether the sweep was stopped before its last job.
    pub stopped: bool,
}

impl Sweep {
    /// Runs the jobs of `shard` that are not done yet, one after the other, until `stop` is true.
    /// `programs` is the folder of `train` and `gossamer`, `wait` waits for a job's process, and
    /// `print` receives a line for each job.
    ///
    /// # Errors
    /// Returns [`Error::JobStopped`] if a job was asked to stop but not the sweep, and the errors
    /// of the job.
    pub fn run(
        &self,
        shard: Shard,
        programs: &Path,
        stop: &AtomicBool,
        mut wait: impl FnMut(Child) -> io::Result<ExitStatus>,
        print: &mut dyn FnMut(&str),
    ) -> Result<SweepResult> {
        let jobs: Vec<_> = (0..self.jobs.len()).filter(|&at| shard.has(at)).map(|at| &self.jobs[at]).collect();
        let mut result = SweepResult { jobs: jobs.len(), ..SweepResult::default() };
        for (at, job) in jobs.iter().enumerate() {
            let stopped = || stop.load(Ordering::Relaxed);
            if stopped() {
                return Ok(SweepResult { stopped: true, ..result });
            }
            let outcome = match job.run(programs, &mut wait)? {
                JobOutcome::Done => "done",
                JobOutcome::DoneBefore => "was done",
                JobOutcome::Stopped | JobOutcome::Failed if stopped() => "stopped",
                JobOutcome::Stopped => return Err(Error::JobStopped { job: job.name.clone() }),
                JobOutcome::Failed => {
                    result.failed.push(job.file("stderr"));
                    "failed"
                }
            };
            print(&format!("{}/{}  {outcome:8}  {}", at + 1, jobs.len(), job.name));
        }
        Ok(result)
    }
}

//! How a process learns that it is not alone.

use std::process::Command;

use super::Communicator;
use crate::Result;

/// What launchers tell a process about how many it is one of: Open MPI, MPICH and Intel MPI,
/// MVAPICH, Slurm's srun.
const VARIABLES: [&str; 4] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"];

/// How many processes a launcher started, going by the environment; 1 without a launcher.
fn launched() -> usize {
    let number = |name: &&str| std::env::var(name).ok()?.parse().ok();
    VARIABLES.iter().find_map(number).unwrap_or(1)
}

/// Starts `command` as a single process, even from within a launcher's job.
pub fn forget_launcher(command: &mut Command) {
    for variable in VARIABLES {
        command.env_remove(variable);
    }
}

/// Meets the processes that were started together with this one, if any were. To be called once,
/// before other threads run.
///
/// # Errors
/// [`crate::Error::Communication`] if there are others, and no way to talk to them.
pub fn start() -> Result<Communicator> {
    match launched() {
        0 | 1 => Ok(Communicator::single()),
        count => connect(count),
    }
}

#[cfg(feature = "mpi")]
fn connect(count: usize) -> Result<Communicator> {
    super::mpi::connect(count)
}

#[cfg(not(feature = "mpi"))]
fn connect(count: usize) -> Result<Communicator> {
    Err(crate::Error::Communication(format!(
        "started as one of {count} processes, but built without MPI: build it with `--features mpi`, or start it once"
    )))
}

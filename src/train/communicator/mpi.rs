//! Processes that `mpirun` or `srun` started.
//!
//! One thread of the process talks to MPI, so that every MPI library will do, whatever it says
//! about threads. It works off what the process requests, in order, while its other threads
//! continue.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mpi::Threading;
use mpi::collective::CommunicatorCollectives;
use mpi::request::{Request, Scope, scope};
use mpi::topology::{Communicator as _, SimpleCommunicator};

use super::{Communicator, Transport};
use crate::{Error, Result};

/// How long an abort may take before the process just ends, which launchers notice too.
const PATIENCE: Duration = Duration::from_secs(5);

enum Task {
    Sum(Vec<f32>),
    Gather(Vec<u8>),
    Abort,
}

struct Mpi {
    rank: usize,
    size: usize,
    tasks: Mutex<Option<Sender<Task>>>,
    sums: Mutex<Receiver<Vec<f32>>>,
    gathered: Mutex<Receiver<Vec<Vec<u8>>>>,
    busy: Arc<AtomicU64>,
    talker: Option<JoinHandle<()>>,
}

/// Meets the other processes, of which a launcher promised `count`.
pub(super) fn connect(count: usize) -> Result<Communicator> {
    let (tasks, inbox) = channel();
    let (send_sums, sums) = channel();
    let (send_gathered, gathered) = channel();
    let (started, start) = channel();
    let busy = Arc::new(AtomicU64::new(0));
    let clock = busy.clone();
    let talk = move || {
        let Some((universe, _)) = mpi::initialize_with_threading(Threading::Funneled) else { return };
        let world = universe.world();
        let _ = started.send((world.rank() as usize, world.size() as usize));
        let mut parts = Vec::new();
        for task in inbox {
            match task {
                Task::Sum(numbers) => {
                    let start = Instant::now();
                    let _ = send_sums.send(sum(&world, numbers, &mut parts));
                    clock.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
                }
                Task::Gather(own) => {
                    let _ = send_gathered.send(gather(&world, &own));
                }
                Task::Abort => world.abort(1),
            }
        }
    };
    let failed = |reason: String| Error::Communication(format!("MPI does not start: {reason}"));
    let talker = thread::Builder::new().name("mpi".into()).spawn(talk).map_err(|e| failed(e.to_string()))?;
    let (rank, size) = start.recv().map_err(|_| failed("it was started before".into()))?;
    let mpi = Mpi {
        rank,
        size,
        tasks: Mutex::new(Some(tasks)),
        sums: Mutex::new(sums),
        gathered: Mutex::new(gathered),
        busy,
        talker: Some(talker),
    };
    if size != count {
        return Err(Error::Communication(format!(
            "the launcher started {count} processes, of which MPI sees {size}: it is the launcher of another MPI library \
             than this program was built with"
        )));
    }
    Ok(Communicator::new(Arc::new(mpi)))
}

/// Adds up `numbers` of all ranks: each gets a part of everybody's, adds those up in the order of
/// ranks, and gives the sum to everybody. No bytes travel that a ring would save, and the order of
/// the terms does not depend on the library. `parts` is buffer to work in.
fn sum(world: &SimpleCommunicator, mut numbers: Vec<f32>, parts: &mut Vec<f32>) -> Vec<f32> {
    let (length, size) = (numbers.len(), world.size() as usize);
    let part = length.div_ceil(size).max(1);
    numbers.resize(part * size, 0.0);
    parts.resize(part * size, 0.0);
    scope(|scope| wait(world.immediate_all_to_all_into(scope, &numbers[..], &mut parts[..])));
    let (total, others) = parts.split_at_mut(part);
    for other in others.chunks_exact(part) {
        total.iter_mut().zip(other).for_each(|(sum, x)| *sum += x);
    }
    scope(|scope| wait(world.immediate_all_gather_into(scope, &*total, &mut numbers[..])));
    numbers.truncate(length);
    numbers
}

fn gather(world: &SimpleCommunicator, own: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![0u8; own.len() * world.size() as usize];
    scope(|scope| wait(world.immediate_all_gather_into(scope, own, &mut all[..])));
    all.chunks(own.len().max(1)).map(<[u8]>::to_vec).collect()
}

/// Waits, and lets whoever computes on this processor go first: a library's own waiting would keep
/// it busy.
fn wait<'a, D: ?Sized, S: Scope<'a>>(mut request: Request<'a, D, S>) {
    while let Err(unfinished) = request.test() {
        request = unfinished;
        thread::yield_now();
    }
}

impl Mpi {
    fn ask(&self, task: Task) -> Result<()> {
        let tasks = self.tasks.lock().map_err(|_| gone())?;
        tasks.as_ref().and_then(|tasks| tasks.send(task).ok()).ok_or_else(gone)
    }

    fn receive<T>(&self, from: &Mutex<Receiver<T>>) -> Result<T> {
        from.lock().map_err(|_| gone())?.recv().map_err(|_| gone())
    }
}

fn gone() -> Error {
    Error::Communication("the thread that talks to MPI ended".into())
}

impl Transport for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn start_sum(&self, numbers: Vec<f32>) -> Result<()> {
        self.ask(Task::Sum(numbers))
    }

    fn finish_sum(&self) -> Result<Vec<f32>> {
        self.receive(&self.sums)
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.ask(Task::Gather(own.to_vec()))?;
        self.receive(&self.gathered)
    }

    fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy.load(Ordering::Relaxed))
    }

    fn abort(&self) {
        if self.ask(Task::Abort).is_ok() {
            thread::sleep(PATIENCE);
        }
        std::process::exit(1);
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        // The others wait for a rank that says goodbye, but would wait for ever for one that
        // panicked.
        if thread::panicking() {
            self.abort();
        }
        if let Ok(mut tasks) = self.tasks.lock() {
            tasks.take();
        }
        if let Some(talker) = self.talker.take() {
            let _ = talker.join();
        }
    }
}

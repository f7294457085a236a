//! Processes that train one model together: each computes the gradient of its share of the batch,
//! all add them up, and all do the same update.
//!
//! Nothing here knows how the processes talk: that is [`Transport`], of which `mpi` (behind the
//! feature of that name) is the one for clusters. A single process is its only rank and
//! communicates nothing.

pub(crate) mod buckets;
#[cfg(feature = "mpi")]
mod mpi;
mod start;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

pub use start::{forget_launcher, start};

use super::config::RunConfig;
use crate::files::hex;
use crate::{Error, Result};

/// How processes talk. All of them call the same things in the same order.
pub trait Transport: Send + Sync {
    /// Which of the processes this is, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Begins to add up `numbers`, equally many from every rank, without waiting.
    ///
    /// # Errors
    /// [`Error::Communication`].
    fn start_sum(&self, numbers: Vec<f32>) -> Result<()>;

    /// Waits for the oldest sum that was begun and not yet taken: the same bits on all ranks, each
    /// the sum in the order of ranks.
    ///
    /// # Errors
    /// [`Error::Communication`].
    fn finish_sum(&self) -> Result<Vec<f32>>;

    /// What every rank says, in the order of ranks; each says equally many bytes.
    ///
    /// # Errors
    /// [`Error::Communication`].
    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// Time spent on sums so far, whether anything waited for them or not.
    fn busy(&self) -> Duration;

    /// Ends all processes, this one included if it can. For when this one cannot continue.
    fn abort(&self);
}

/// The processes of a run, as one of them sees them.
#[derive(Clone, Default)]
pub struct Communicator {
    /// None: this process is alone.
    peers: Option<Arc<dyn Transport>>,
    waited: Arc<AtomicU64>,
}

/// Where a rank runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Its number among the host's ranks, from 0.
    pub local_rank: usize,
    /// Ranks on the host.
    pub local_size: usize,
    /// Threads for it: the processors that it may use, divided by the ranks that may use the same
    /// ones.
    pub threads: usize,
}

/// Time spent on sums by a rank.
#[derive(Clone, Copy, Debug)]
pub struct Communication {
    /// Ranks.
    pub ranks: usize,
    /// Time in which sums were under way, hidden behind the backward pass or not.
    pub busy: Duration,
    /// Time in which this rank could do nothing but wait, for the network or for slower ranks.
    pub waited: Duration,
}

impl Communication {
    /// What was spent since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { busy: self.busy - earlier.busy, waited: self.waited - earlier.waited, ..self }
    }
}

impl Communicator {
    /// A single process.
    pub fn single() -> Self {
        Self::default()
    }

    /// The process at this end of `peers`.
    pub fn new(peers: Arc<dyn Transport>) -> Self {
        Self { peers: Some(peers), waited: Arc::default() }
    }

    /// Which of the processes this is, from 0.
    pub fn rank(&self) -> usize {
        self.peers.as_ref().map_or(0, |peers| peers.rank())
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.peers.as_ref().map_or(1, |peers| peers.size())
    }

    /// Whether this is the one that logs, evaluates and writes.
    pub fn is_root(&self) -> bool {
        self.rank() == 0
    }

    fn start_sum(&self, numbers: Vec<f32>) -> Result<()> {
        self.peers()?.start_sum(numbers)
    }

    fn finish_sum(&self) -> Result<Vec<f32>> {
        self.waiting(|| self.peers()?.finish_sum())
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        if let Some(peers) = &self.peers { self.waiting(|| peers.gather(own)) } else { Ok(vec![own.to_vec()]) }
    }

    fn peers(&self) -> Result<&Arc<dyn Transport>> {
        self.peers.as_ref().ok_or_else(|| Error::Communication("a single process has no sums to wait for".into()))
    }

    fn waiting<T>(&self, f: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = f();
        self.waited.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        result
    }

    /// Means of numbers over the ranks, of which all give equally many.
    ///
    /// # Errors
    /// [`Error::Communication`].
    pub fn mean(&self, numbers: &[f64]) -> Result<Vec<f64>> {
        if self.size() == 1 {
            return Ok(numbers.to_vec());
        }
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let mut mean = vec![0.0; numbers.len()];
        for of_rank in self.gather(&bytes)? {
            for (sum, bytes) in mean.iter_mut().zip(of_rank.as_chunks().0) {
                *sum += f64::from_le_bytes(*bytes);
            }
        }
        mean.iter_mut().for_each(|sum| *sum /= self.size() as f64);
        Ok(mean)
    }

    /// Waits until all ranks are here.
    pub(crate) fn barrier(&self) -> Result<()> {
        self.gather(&[0]).map(drop)
    }

    /// What rank 0 says.
    ///
    /// # Errors
    /// [`Error::Communication`].
    pub fn broadcast(&self, text: &str) -> Result<String> {
        let lengths = self.gather(&(text.len() as u64).to_le_bytes())?;
        let length = lengths.iter().filter_map(|bytes| Some(u64::from_le_bytes(*bytes.first_chunk()?))).max();
        let (own, first_length) = (text.as_bytes(), lengths.first().and_then(|bytes| bytes.first_chunk().copied()));
        let mut padded = own.to_vec();
        padded.resize(length.unwrap_or(0) as usize, 0);
        let mut first = self.gather(&padded)?.into_iter().next().unwrap_or_default();
        first.truncate(u64::from_le_bytes(first_length.unwrap_or_default()) as usize);
        String::from_utf8(first).map_err(|e| Error::Communication(format!("rank 0 sent something else than text: {e}")))
    }

    /// Returns an error on all ranks, naming those that differ from most, unless all give the same
    /// `text`. `what` is what they should agree on, in the plural.
    ///
    /// # Errors
    /// [`Error::Communication`].
    pub fn assert_all_equal(&self, what: &str, text: &str) -> Result<()> {
        if self.size() == 1 {
            return Ok(());
        }
        let all = self.gather(&Sha256::digest(text.as_bytes()))?;
        let votes = |hash: &Vec<u8>| all.iter().filter(|other| *other == hash).count();
        // Of equally many, those with rank 0 are right.
        let Some(usual) = all.iter().rev().max_by_key(|hash| votes(hash)) else { return Ok(()) };
        let odd: Vec<_> = (0..all.len()).filter(|&rank| all[rank] != *usual).map(|rank| rank.to_string()).collect();
        match odd.as_slice() {
            [] => Ok(()),
            [one] => Err(Error::Communication(format!("rank {one} of {} has other {what} than the others", all.len()))),
            many => Err(Error::Communication(format!(
                "ranks {} of {} have other {what} than the others",
                many.join(", "),
                all.len()
            ))),
        }
    }

    /// Where this rank runs.
    ///
    /// # Errors
    /// [`Error::Communication`].
    pub fn topology(&self) -> Result<Topology> {
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        let host = sysinfo::System::host_name().unwrap_or_default();
        // Ranks pinned to processors of their own have masks of their own.
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap_or_default();
        let of = |text: &str| hex(&Sha256::digest(text.as_bytes()));
        let own = of(&host) + &of(mask);
        let all = self.gather(own.as_bytes())?;
        let on_my_host: Vec<_> = (0..all.len()).filter(|&rank| all[rank].starts_with(of(&host).as_bytes())).collect();
        let same_processors = all.iter().filter(|other| *other == own.as_bytes()).count();
        Ok(Topology {
            local_rank: on_my_host.iter().position(|&rank| rank == self.rank()).unwrap_or(0),
            local_size: on_my_host.len(),
            threads: (available / same_processors.max(1)).max(1),
        })
    }

    /// Time spent on sums so far; none for a single process.
    pub(crate) fn communication(&self) -> Option<Communication> {
        let peers = self.peers.as_ref()?;
        let waited = Duration::from_nanos(self.waited.load(Ordering::Relaxed));
        Some(Communication { ranks: self.size(), busy: peers.busy(), waited })
    }

    /// Ends all processes, this one included. For when this one cannot continue.
    pub fn abort(&self) {
        if let Some(peers) = &self.peers {
            peers.abort();
        }
    }

    /// This rank's share of an optimizer step: the settings with `train.batch_size` and
    /// `train.accumulate` lowered to it.
    ///
    /// Forward passes are dealt out whole as far as they go; ranks that share a pass divide its
    /// sequences. With bridges, passes stay whole, since an error is normalised by the spread of
    /// its pass.
    ///
    /// # Errors
    /// [`Error::Config`] saying what must divide by what.
    pub fn share(&self, config: &RunConfig) -> Result<RunConfig> {
        let (passes, size) = (config.train.accumulate, self.size());
        let lanes = gcd(passes, size);
        let in_a_lane = size / lanes;
        let mut own = config.clone();
        own.train.accumulate /= lanes;
        own.train.batch_size /= in_a_lane;
        if config.bridge.is_some() && in_a_lane > 1 {
            let message =
                format!("{passes} passes cannot be dealt out to {size} ranks; it must be a multiple of {size}");
            return Err(Error::config("train.accumulate", message));
        }
        match config.train.batch_size.is_multiple_of(in_a_lane) {
            true => Ok(own),
            false => {
                let message = format!(
                    "{} sequences (train.accumulate = {passes}) cannot be divided among {size} ranks: {in_a_lane} share a \
                     pass, so that it must be a multiple of {in_a_lane}",
                    config.train.batch_size
                );
                Err(Error::config("train.batch_size", message))
            }
        }
    }

    /// Of the whole step's passes, sequences one after the other, those that are this rank's; `own`
    /// is its [`Communicator::share`].
    pub fn scatter(&self, passes: Vec<Vec<u32>>, own: &RunConfig) -> Vec<Vec<u32>> {
        let lanes = passes.len() / own.train.accumulate.max(1);
        let in_a_lane = (self.size() / lanes.max(1)).max(1);
        let (lane, part) = (self.rank() / in_a_lane, self.rank() % in_a_lane);
        let length = own.train.batch_size * own.model.block_size;
        let mine = passes.into_iter().skip(lane * own.train.accumulate).take(own.train.accumulate);
        mine.map(|pass| pass.into_iter().skip(part * length).take(length).collect()).collect()
    }
}

impl fmt::Debug for Communicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank(), self.size())
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

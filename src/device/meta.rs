//! The device that computes nothing: its tensors have shapes and no data. It counts what a
//! computation allocates, by the same rules of reuse as the device that it stands for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cpu::{bytes_taken, take_fitting};
use crate::{Error, Result};

/// Most bytes of one tensor: no machine has as many, and sums of them do not overflow.
const MAX_BYTES: u64 = 1 << 56;

/// Stands for the CPU or for a GPU.
#[derive(Clone)]
pub struct Meta {
    pub(super) like_cpu: bool,
    pools: Arc<Mutex<Pools>>,
}

#[derive(Default)]
struct Pools {
    /// Free buffers by size.
    free: BTreeMap<u64, Vec<()>>,
    allocated: u64,
}

/// A buffer that only counts.
pub(super) struct Buffer {
    size: u64,
    home: Meta,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.home.lock().free.entry(self.size).or_default().push(());
    }
}

impl Meta {
    pub(super) fn new(like_cpu: bool) -> Self {
        Self { like_cpu, pools: Arc::default() }
    }

    pub(super) fn allocated(&self) -> u64 {
        self.lock().allocated
    }

    pub(super) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.pools, &other.pools)
    }

    fn lock(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer of `bytes`.
    pub(super) fn alloc(&self, name: &str, bytes: u64) -> Result<Buffer> {
        if bytes > MAX_BYTES {
            let limit = "no machine has as many".to_string();
            return Err(Error::Limit { tensor: name.to_string(), needed: bytes, limit });
        }
        let size = if self.like_cpu { bytes_taken(bytes) } else { bytes.max(4) };
        let mut pools = self.lock();
        // What is taken from the pool keeps its size: it goes back to where it came from.
        let fitting = pools.free.range(size..=2 * size).next().map(|(&size, _)| size);
        match fitting {
            Some(_) => drop(take_fitting(&mut pools.free, size)),
            None => pools.allocated = pools.allocated.saturating_add(size),
        }
        Ok(Buffer { size: fitting.unwrap_or(size), home: self.clone() })
    }
}

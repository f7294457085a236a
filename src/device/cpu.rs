//! The CPU device: recycled host memory, threads, and vector instructions.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use super::tensor::Element;
use crate::{Error, Result};

/// The CPU. Tensors are plain vectors, reused by length so that a training step allocates nothing
/// new.
#[derive(Clone)]
pub struct Cpu {
    shared: Arc<Shared>,
}

#[derive(Default)]
pub(super) struct Shared {
    pub(super) floats: Pool<f32>,
    pub(super) words: Pool<u32>,
    allocated: AtomicU64,
}

/// Free vectors, by capacity.
pub(crate) struct Pool<T> {
    free: Mutex<BTreeMap<usize, Vec<Vec<T>>>>,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { free: Mutex::new(BTreeMap::new()) }
    }
}

impl<T> Pool<T> {
    fn alloc(&self, len: usize) -> Option<Vec<T>> {
        take_fitting(&mut *self.free.lock().ok()?, len)
    }
}

/// Takes the smallest item of at least `size` out of a store, unless it is more than twice as
/// large.
///
/// The tolerance is for what shrinks step by step, as sparse weights while the density falls:
/// without it every step would leave buffers that no later step can use.
pub(super) fn take_fitting<K, I>(free: &mut BTreeMap<K, Vec<I>>, size: K) -> Option<I>
where
    K: Ord + Copy + std::ops::Add<Output = K>,
{
    let (&key, items) = free.range_mut(size..=size + size).next()?;
    let item = items.pop();
    if items.is_empty() {
        free.remove(&key);
    }
    item
}

impl Cpu {
    /// The CPU device. Threads are rayon's (one a core; `RAYON_NUM_THREADS` changes it).
    pub(crate) fn new() -> Self {
        Self { shared: Arc::default() }
    }

    /// One line of text.
    pub(crate) fn describe(&self) -> String {
        format!("CPU, {} threads", rayon::current_num_threads())
    }

    /// Fills the free vectors with set bits.
    pub(super) fn poison_free_memory(&self) -> Result<()> {
        fn fill<T: Copy>(pool: &Pool<T>, value: T) -> Result<()> {
            let mut free = pool.free.lock().map_err(|_| Error::Device("another thread failed on the CPU".into()))?;
            free.values_mut().flatten().for_each(|vector| vector.fill(value));
            Ok(())
        }
        fill(&self.shared.floats, f32::from_bits(u32::MAX))?;
        fill(&self.shared.words, u32::MAX)
    }

    pub(super) fn allocated(&self) -> u64 {
        self.shared.allocated.load(Ordering::Relaxed)
    }

    pub(super) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// A vector of `len` entries with unspecified (but initialised) contents.
    pub(super) fn alloc<T: Element>(&self, name: &str, len: usize) -> Result<Buffer<T>> {
        let data = match T::pool(&self.shared).alloc(len) {
            Some(mut data) => {
                data.resize(len, T::default());
                data
            }
            None => {
                let mut data = Vec::new();
                data.try_reserve_exact(len).map_err(|_| {
                    Error::Memory(format!("no host memory for {name} ({} bytes)", len * size_of::<T>()))
                })?;
                data.resize(len, T::default());
                self.shared.allocated.fetch_add((len * size_of::<T>()) as u64, Ordering::Relaxed);
                data
            }
        };
        Ok(Buffer { data, home: self.shared.clone() })
    }
}

impl Default for Cpu {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cpu")
    }
}

/// A vector of a device, which reuses it once it is dropped.
pub(super) struct Buffer<T: Element> {
    pub(super) data: Vec<T>,
    home: Arc<Shared>,
}

impl<T: Element> Drop for Buffer<T> {
    fn drop(&mut self) {
        if let Ok(mut free) = T::pool(&self.home).free.lock() {
            let data = std::mem::take(&mut self.data);
            free.entry(data.capacity()).or_default().push(data);
        }
    }
}

/// Gives the CPU device `count` threads, unless `RAYON_NUM_THREADS` is set. For programs that share
/// the processors. Only the first call has an effect, and only before anything was computed.
pub fn use_threads(count: usize) {
    if std::env::var_os("RAYON_NUM_THREADS").is_none() {
        // It fails only where there are threads already.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(count).build_global();
    }
}

/// Runs `f` on one of the CPU device's threads.
///
/// An operation that another thread calls wakes one of them and sleeps until it is done. A training
/// step calls hundreds, and that would take a good part of a small model's time.
pub fn on_worker<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| f())
}

/// Calls a function with a closure as its last argument that is `#[inline(always)]`.
macro_rules! inlined {
    ($($function:ident)::+($($argument:expr),*), |$($x:pat_param),*| $body:expr) => {
        $($function)::+(
            $($argument,)*
            #[inline(always)]
            |$($x),*| $body,
        )
    };
    ($object:ident.$method:ident($($argument:expr),*), |$($x:pat_param),*| $body:expr) => {
        $object.$method(
            $($argument,)*
            #[inline(always)]
            |$($x),*| $body,
        )
    };
}

/// Evaluates an expression compiled for the widest vectors this processor has. What it calls must
/// be `#[inline(always)]`.
///
/// The expression stands twice in it, not in one closure that is called twice: of such a closure the
/// compiler tends to keep one copy, the one without wide vectors, which takes several times as long.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
macro_rules! vectorised {
    ($body:expr) => {
        if let Some(v3) = pulp::x86::V3::try_new() {
            v3.vectorize(
                #[inline(always)]
                || $body,
            )
        } else {
            $body
        }
    };
}

/// Evaluates an expression with the vectors that every processor of this kind has.
#[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
macro_rules! vectorised {
    ($body:expr) => {
        $body
    };
}

pub(crate) use {inlined, vectorised};

/// Calls `f(first_row, rows)` in parallel on consecutive blocks of `out`'s rows (`width` entries
/// each), vectorised.
///
/// Blocks depend on the shape alone, so that results never depend on the number of threads.
pub(crate) fn for_row_blocks<T: Element>(
    out: &mut [T],
    width: usize,
    rows_per_block: usize,
    f: impl Fn(usize, &mut [T]) + Sync,
) {
    if out.is_empty() || width == 0 {
        return;
    }
    let block = rows_per_block.max(1);
    out.par_chunks_mut(block * width).enumerate().for_each(|(i, rows)| vectorised!(f(i * block, rows)));
}

/// How many rows of `width` entries make a block that is large enough for a thread.
pub(crate) fn rows_per_block(width: usize) -> usize {
    (16 * 1024 / width.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_shrink_step_by_step_use_the_same_memory() {
        let cpu = Cpu::new();
        let mut after_first = 0;
        for len in (501..1000).rev() {
            drop((cpu.alloc::<f32>("values", len).unwrap(), cpu.alloc::<u32>("indices", len).unwrap()));
            if after_first == 0 {
                after_first = cpu.allocated();
            }
        }
        assert_eq!(cpu.allocated(), after_first);
        assert_eq!(cpu.alloc::<f32>("values", 700).unwrap().data.len(), 700);
        drop(cpu.alloc::<f32>("small", 10).unwrap());
        assert!(cpu.allocated() > after_first, "a large vector must not be wasted on a small tensor");
    }
}

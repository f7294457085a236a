//! The CPU device: recycled host memory, threads, and vector instructions.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use pulp::Arch;
use rayon::prelude::*;

use super::gpu;
use super::tensor::Element;
use super::tuning::Tuning;
use crate::{Error, Result};

/// The CPU. Tensors are plain memory, reused by size so that a training step allocates nothing new.
#[derive(Clone)]
pub struct Cpu {
    shared: Arc<Shared>,
}

#[derive(Default)]
pub(super) struct Shared {
    /// Free memory, by its number of lines.
    free: Mutex<BTreeMap<usize, Vec<Vec<Line>>>>,
    allocated: AtomicU64,
}

/// A cache line. Numbers lie in whole ones, so that no vector of theirs lies across two.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u32; 16]);

/// How many lines `bytes` take.
fn lines(bytes: usize) -> usize {
    bytes.div_ceil(size_of::<Line>())
}

/// Bytes of memory that a tensor of so many takes.
pub(super) fn bytes_taken(bytes: u64) -> u64 {
    bytes.next_multiple_of(size_of::<Line>() as u64)
}

/// Numbers that begin with a cache line, for a kernel to use again and again.
#[derive(Default)]
pub(crate) struct Scratch(Vec<Line>);

impl Scratch {
    /// The first `len` numbers. What nobody has written is zero.
    #[inline(always)]
    pub(crate) fn numbers(&mut self, len: usize) -> &mut [f32] {
        let needed = lines(len * size_of::<f32>());
        if self.0.len() < needed {
            self.0.resize(needed, bytemuck::Zeroable::zeroed());
        }
        &mut bytemuck::cast_slice_mut(&mut self.0)[..len]
    }

    /// The first `len` numbers, made zero.
    #[inline(always)]
    pub(crate) fn zeros(&mut self, len: usize) -> &mut [f32] {
        let numbers = self.numbers(len);
        numbers.fill(0.0);
        numbers
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
        format!("CPU, {} threads, {}", rayon::current_num_threads(), arch_name())
    }

    /// Fills free memory with set bits.
    pub(super) fn poison_free_memory(&self) -> Result<()> {
        let mut free = self.shared.free.lock().map_err(|_| Error::Device("another thread failed on the CPU".into()))?;
        free.values_mut().flatten().for_each(|memory| memory.fill(Line([u32::MAX; 16])));
        Ok(())
    }

    pub(super) fn allocated(&self) -> u64 {
        self.shared.allocated.load(Ordering::Relaxed)
    }

    pub(super) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Memory for `len` entries with unspecified (but initialised) contents.
    pub(super) fn alloc<T: Element>(&self, name: &str, len: usize) -> Result<Buffer<T>> {
        let needed = lines(len * size_of::<T>());
        let reused = self.shared.free.lock().ok().and_then(|mut free| take_fitting(&mut free, needed));
        let memory = match reused {
            Some(memory) => memory,
            None => {
                let mut memory: Vec<Line> = Vec::new();
                memory.try_reserve_exact(needed).map_err(|_| {
                    Error::Memory(format!("no host memory for {name} ({} bytes)", len * size_of::<T>()))
                })?;
                ask_for_large_pages(memory.spare_capacity_mut());
                memory.resize(needed, bytemuck::Zeroable::zeroed());
                self.shared.allocated.fetch_add((needed * size_of::<Line>()) as u64, Ordering::Relaxed);
                memory
            }
        };
        Ok(Buffer { memory, len, home: self.shared.clone(), entries: PhantomData })
    }
}

/// Asks the system for large pages, where memory is large: kernels that read it here and there would
/// otherwise wait for the addresses of small ones. A request only: it may be refused.
#[cfg(target_os = "linux")]
fn ask_for_large_pages(memory: &mut [MaybeUninit<Line>]) {
    const LARGE: usize = 2 << 20;
    let pointers = memory.as_mut_ptr_range();
    let (start, end) = (pointers.start.addr().next_multiple_of(LARGE), pointers.end.addr() / LARGE * LARGE);
    if start < end {
        // SAFETY: the pages lie within memory that is borrowed exclusively, and the advice changes
        // neither its contents nor how it may be accessed.
        unsafe { libc::madvise(pointers.start.with_addr(start).cast(), end - start, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn ask_for_large_pages(_: &mut [MaybeUninit<Line>]) {}

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

/// Entries in memory of a device, which reuses it once they are dropped.
pub(super) struct Buffer<T: Element> {
    memory: Vec<Line>,
    len: usize,
    home: Arc<Shared>,
    entries: PhantomData<T>,
}

impl<T: Element> Buffer<T> {
    pub(super) fn as_slice(&self) -> &[T] {
        &bytemuck::cast_slice(&self.memory)[..self.len]
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.memory)[..self.len]
    }
}

impl<T: Element> Drop for Buffer<T> {
    fn drop(&mut self) {
        if let Ok(mut free) = self.home.free.lock() {
            let memory = std::mem::take(&mut self.memory);
            free.entry(memory.len()).or_default().push(memory);
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

/// The vector instructions that kernels use: the widest ones of this processor, or those that the
/// environment variable `GOSSAMER_SIMD` names (`avx512`, `avx2` or `none`), if it has them.
pub(crate) fn arch() -> Arch {
    static CHOSEN: OnceLock<Arch> = OnceLock::new();
    *CHOSEN.get_or_init(|| named_arch(std::env::var("GOSSAMER_SIMD").ok().as_deref()))
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn named_arch(name: Option<&str>) -> Arch {
    let avx2 = || pulp::x86::V3::try_new().map(Arch::V3);
    match name {
        Some("none") => Arch::Scalar,
        Some("avx2") => avx2().unwrap_or(Arch::Scalar),
        None | Some("" | "avx512") => Arch::new(),
        Some(other) => {
            tracing::warn!("GOSSAMER_SIMD={other} is none of avx512, avx2 and none: using the widest vectors");
            Arch::new()
        }
    }
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
fn named_arch(_: Option<&str>) -> Arch {
    Arch::new()
}

/// The vector instructions of [`arch`], in words.
pub(crate) fn arch_name() -> &'static str {
    match arch() {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        Arch::V4(_) => "AVX-512",
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        Arch::V3(_) => "AVX2",
        #[cfg(target_arch = "aarch64")]
        Arch::Neon(_) => "NEON",
        _ => "no vectors",
    }
}

/// What is fastest on this processor with these vectors.
fn tuning() -> &'static Mutex<Tuning> {
    static TUNING: OnceLock<Mutex<Tuning>> = OnceLock::new();
    TUNING
        .get_or_init(|| Mutex::new(Tuning::open(&format!("CPU with {}", arch_name()), gpu::cache_folder().as_deref())))
}

/// The tuned share called `name`, in thousandths, or else `default`.
pub(crate) fn tuned_share(name: &str, default: f64) -> f64 {
    let tuning = tuning().lock().unwrap_or_else(PoisonError::into_inner);
    tuning.choice(name).map_or(default, |thousandths| f64::from(thousandths) / 1000.0)
}

/// Sets the share called `name` for this process, rounded to thousandths.
pub(crate) fn set_tuned_share(name: &str, share: f64) {
    tuning().lock().unwrap_or_else(PoisonError::into_inner).choose(name, (1000.0 * share).round() as u32);
}

/// As `Gpu::save_tuning`.
pub(crate) fn save_tuning() -> Result<Option<PathBuf>> {
    tuning().lock().unwrap_or_else(PoisonError::into_inner).save(gpu::cache_folder().as_deref())
}

/// Evaluates an expression compiled for the vectors of [`arch`]. What it calls must be
/// `#[inline(always)]`.
///
/// The expression stands once in it for every kind of processor, not in one closure that is called
/// from several places: of such a closure the compiler tends to keep one copy, the one without wide
/// vectors, which takes several times as long.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
macro_rules! vectorised {
    ($body:expr) => {
        match $crate::device::cpu::arch() {
            pulp::Arch::V4(v4) => v4.vectorize(
                #[inline(always)]
                || $body,
            ),
            pulp::Arch::V3(v3) => v3.vectorize(
                #[inline(always)]
                || $body,
            ),
            _ => $body,
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
pub(crate) mod tests {
    use super::*;

    /// Every kind of vector instructions that this processor has.
    pub(crate) fn kinds() -> Vec<Arch> {
        let mut kinds = vec![Arch::Scalar, Arch::new()];
        #[cfg(target_arch = "x86_64")]
        kinds.extend(pulp::x86::V3::try_new().map(Arch::V3));
        kinds
    }

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
        assert_eq!(cpu.alloc::<f32>("values", 700).unwrap().as_slice().len(), 700);
        drop(cpu.alloc::<f32>("small", 10).unwrap());
        assert!(cpu.allocated() > after_first, "large memory must not be wasted on a small tensor");
    }

    #[test]
    fn entries_begin_with_a_cache_line() {
        let cpu = Cpu::new();
        let begins = |numbers: &[f32]| numbers.as_ptr().addr().is_multiple_of(64);
        for len in [0, 1, 16, 17, 100_000] {
            assert!(begins(cpu.alloc::<f32>("values", len).unwrap().as_slice()), "{len}");
            assert!(begins(Scratch::default().numbers(len)), "{len}");
        }
    }

    #[test]
    fn memory_of_large_pages_holds_what_is_written() {
        for len in [(1 << 19) - 1, 1 << 19, 3 << 20] {
            let mut buffer = Cpu::new().alloc::<u32>("large", len).unwrap();
            assert!(buffer.as_slice().iter().all(|&x| x == 0), "{len}: fresh memory is zero");
            buffer.as_mut_slice().iter_mut().zip(0..).for_each(|(x, i)| *x = i);
            assert!(buffer.as_slice().iter().zip(0..).all(|(&x, i)| x == i), "{len}");
        }
    }
}

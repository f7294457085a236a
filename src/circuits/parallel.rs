//! Independent searches in parallel.

use std::panic::resume_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::device::Device;
use crate::{Error, Result};

/// Runs the jobs `0..count` and returns their results, in order. On the CPU the threads are divided
/// among them: the operations of a search are too small to occupy several threads well. A GPU runs
/// one job after the other. A job's result must not depend on the number of threads, and no
/// operation's does.
///
/// # Errors
/// [`Error::Memory`] if no thread can be started.
pub fn map<T: Send>(device: &Device, count: usize, job: impl Fn(usize) -> T + Sync) -> Result<Vec<T>> {
    let threads = rayon::current_num_threads();
    let workers = if device.is_cpu() { threads.min(count) } else { 1 };
    if workers <= 1 {
        return Ok((0..count).map(job).collect());
    }
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, T)>> = Mutex::new(Vec::new());
    let failed = |error: &dyn std::fmt::Display| Error::Memory(format!("a thread could not be started: {error}"));
    let pools = (0..workers)
        .map(|w| ThreadPoolBuilder::new().num_threads(threads / workers + usize::from(w < threads % workers)).build())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(&error))?;
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return;
            }
            let result = job(at);
            if let Ok(mut results) = results.lock() {
                results.push((at, result));
            }
        }
    };
    thread::scope(|scope| {
        let start = |pool| thread::Builder::new().spawn_scoped(scope, move || ThreadPool::install(pool, work));
        let started: Vec<_> = pools.iter().map(start).collect();
        // One thread is enough to do all jobs.
        if let (true, Some(Err(error))) = (started.iter().all(|thread| thread.is_err()), started.first()) {
            return Err(failed(error));
        }
        for thread in started.into_iter().flatten() {
            if let Err(panic) = thread.join() {
                next.store(count, Ordering::Relaxed);
                resume_unwind(panic);
            }
        }
        Ok(())
    })?;
    let mut results = results.into_inner().map_err(|error| failed(&error))?;
    results.sort_by_key(|(at, _)| *at);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `f` with four threads to divide, whatever the machine has.
    fn with_four_threads<T: Send>(f: impl FnOnce() -> T + Send) -> T {
        ThreadPoolBuilder::new().num_threads(4).build().unwrap().install(f)
    }

    #[test]
    fn results_come_in_order_and_jobs_run_once() {
        for count in [0, 1, 2, 3, 17] {
            let calls = AtomicUsize::new(0);
            let got = with_four_threads(|| {
                map(&Device::cpu(), count, |i| {
                    calls.fetch_add(1, Ordering::Relaxed);
                    i * i
                })
            });
            assert_eq!(got.unwrap(), (0..count).map(|i| i * i).collect::<Vec<_>>());
            assert_eq!(calls.into_inner(), count);
        }
    }

    #[test]
    fn threads_are_shared_out() {
        let threads =
            |count: usize| with_four_threads(|| map(&Device::cpu(), count, |_| rayon::current_num_threads())).unwrap();
        assert_eq!(threads(1), [4]);
        assert_eq!(threads(2), [2, 2]);
        assert!(threads(3).iter().all(|n| [1, 2].contains(n)));
        assert_eq!(threads(9), [1; 9]);
        // Jobs within jobs divide the threads of their job.
        let nested = |_| map(&Device::cpu(), 3, |_| rayon::current_num_threads()).unwrap();
        assert_eq!(with_four_threads(|| map(&Device::cpu(), 4, nested)).unwrap(), vec![vec![1; 3]; 4]);
    }

    #[test]
    fn a_job_that_panics_is_heard() {
        let job = |i| assert!(i != 3, "job three");
        let run = || with_four_threads(|| map(&Device::cpu(), 9, job)).map(drop);
        let panic = std::panic::catch_unwind(run).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>().copied(), Some("job three"));
    }
}

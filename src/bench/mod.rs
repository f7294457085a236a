//! How fast is this device? Every device does the same work, so that the results of different
//! machines can be compared.
//!
//! `run` first checks the golden cases, then times each of the `workloads`: a warm-up, then
//! runs until its time budget is spent, with inputs that rotate through more memory than the
//! caches. A [`BenchReport`] is its JSON file, [`compare`] compares several.

mod autotune;
pub mod compare;
mod report;
mod workloads;

use std::time::{Duration, Instant};

pub(crate) use autotune::autotune_cpu;
pub use autotune::{ShareTimes, TileTimes, autotune};
pub use report::{BenchReport, DeviceInfo, Machine, Row, Seconds, Unit, VERSION};

use crate::check;
use crate::device::Device;
use crate::{Error, Result};
use workloads::Workload;

/// How much time to spend.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Time for each piece of work.
    pub budget: Duration,
    /// Work that would take longer than this once, estimated from a smaller piece of its kind, is
    /// skipped.
    pub longest: Duration,
    /// Least number of runs.
    pub runs: usize,
}

impl Options {
    /// A few minutes: for numbers to publish.
    pub(crate) fn full() -> Self {
        Self { budget: Duration::from_millis(1500), longest: Duration::from_secs(6), runs: 7 }
    }

    /// Under a minute, on a software driver too: for a first look.
    pub(crate) fn quick() -> Self {
        Self { budget: Duration::from_millis(150), longest: Duration::from_millis(700), runs: 3 }
    }
}

/// Seconds: a shorter run is repeated within one measurement.
const MIN_SECONDS: f64 = 0.004;

/// Runs whose launches and host time are looked at.
const COUNTED_RUNS: usize = 3;

/// Most runs of one piece of work.
const MAX_RUNS: usize = 200;

/// Checks the device, then measures it, and calls `watch` with every row when it is done.
pub(crate) fn run(device: &Device, options: &Options, watch: &mut dyn FnMut(&Row)) -> Result<BenchReport> {
    let cases = check::built_in();
    for case in &cases {
        let comparisons = check::run(case, device)?;
        if let Some(wrong) = comparisons.iter().find(|comparison| !comparison.passed()) {
            return Err(Error::Device(format!(
                "{} computes wrong numbers ({}: {} off by {:.1e} at {}); see `gossamer check`",
                device.describe(),
                case.name,
                wrong.quantity,
                wrong.error,
                wrong.at
            )));
        }
    }
    let mut rows: Vec<Row> = Vec::new();
    for work in workloads::all() {
        let before = rows.iter().rfind(|row| row.name == work.name).cloned();
        let row = measure(device, options, work, before.as_ref())?;
        watch(&row);
        rows.push(row);
    }
    Ok(BenchReport::new(device, cases.len(), rows))
}

/// Times one piece of work; `before` is a smaller piece of its kind.
fn measure(device: &Device, options: &Options, work: Workload, before: Option<&Row>) -> Result<Row> {
    let mut row = Row::new(work.name, work.shape, work.amount, work.unit);
    let estimated = before.map_or(0.0, |before| work.amount / before.rate().max(f64::MIN_POSITIVE));
    if estimated > options.longest.as_secs_f64() || before.is_some_and(|before| before.seconds.is_none()) {
        row.skipped = Some(match estimated {
            seconds if seconds.is_finite() && seconds < 1e6 => format!("would take about {seconds:.0} s"),
            _ => "would take too long".into(),
        });
        return Ok(row);
    }
    let mut job = match (work.prepare)(device) {
        Ok(job) => job,
        Err(error @ (Error::Limit { .. } | Error::Memory(_))) => {
            row.skipped = Some(error.to_string());
            return Ok(row);
        }
        Err(error) => return Err(error),
    };
    row.seconds = Some(timed(device, options, &mut job)?);
    if !device.is_cpu() {
        count(device, &mut row, &mut job)?;
    }
    Ok(row)
}

/// What one run of `job` asks of the device and of the host, the least host time of a few.
fn count(device: &Device, row: &mut Row, job: &mut dyn FnMut(usize) -> Result<()>) -> Result<()> {
    for round in 0..COUNTED_RUNS {
        device.sync()?;
        let (before, start) = (device.usage()?, Instant::now());
        job(round)?;
        let elapsed = start.elapsed();
        let usage = device.usage()?.since(&before);
        let host = elapsed.saturating_sub(usage.waited).as_secs_f64();
        (row.launches, row.bytes) = (Some(usage.launches()), Some(usage.bytes));
        row.host_seconds = Some(row.host_seconds.map_or(host, |least| least.min(host)));
    }
    Ok(())
}

/// Times `job`, which gets the number of its earlier runs.
fn timed(device: &Device, options: &Options, job: &mut dyn FnMut(usize) -> Result<()>) -> Result<Seconds> {
    let mut round = 0;
    let mut time = |times: usize| -> Result<f64> {
        let start = Instant::now();
        for _ in 0..times {
            job(round)?;
            round += 1;
        }
        device.sync()?;
        Ok(start.elapsed().as_secs_f64() / times as f64)
    };
    // The first run compiles and allocates, the second tells how long one takes.
    time(1)?;
    let once = time(1)?;
    let times = (MIN_SECONDS / once.max(1e-9)).ceil().clamp(1.0, 1000.0) as usize;
    let mut seconds = Vec::new();
    let start = Instant::now();
    while seconds.len() < options.runs || (start.elapsed() < options.budget && seconds.len() < MAX_RUNS) {
        seconds.push(time(times)?);
    }
    Ok(Seconds::of(seconds))
}

//! The results of a benchmark, and their file.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use crate::device::{Device, Gpu};
use crate::files::{read_unmarked, write_atomic};
use crate::ops::linear::{self, OutputShape};
use crate::{Error, Result};

/// The version of the file. Raised whenever a piece of work changes, since its numbers no longer
/// compare.
pub const VERSION: u32 = 1;

/// One device's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchReport {
    /// [`VERSION`].
    pub version: u32,
    /// The version of this program.
    pub gossamer: String,
    /// When it was measured, in seconds since 1970.
    pub time: u64,
    /// The machine.
    pub machine: Machine,
    /// The device.
    pub device: DeviceInfo,
    /// How many golden cases passed before.
    pub golden_cases: usize,
    /// What was measured.
    pub rows: Vec<Row>,
}

/// The machine of a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Operating system and architecture.
    pub system: String,
    /// The processor's name.
    pub processor: String,
    /// Threads that this program uses.
    pub threads: usize,
    /// Bytes of main memory.
    pub memory: u64,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// Its name.
    pub name: String,
    /// Cpu, Vulkan, Metal, Dx12 or Gl.
    pub backend: String,
    /// The driver and its version; nothing for the CPU.
    pub driver: String,
    /// Cpu, DiscreteGpu, IntegratedGpu, VirtualGpu or Other; software adapters say Cpu, with a
    /// backend of their own.
    pub kind: String,
    /// Whether its kernels use subgroup operations.
    #[serde(default)]
    pub subgroups: bool,
    /// The tiles of its dense product, for each [`OutputShape`] in order; nothing for the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiles: Option<[(usize, usize); 3]>,
}

/// One piece of work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its kind.
    pub name: String,
    /// Its sizes.
    pub shape: String,
    /// How much it is, in units.
    pub amount: f64,
    /// The unit.
    pub unit: Unit,
    /// How long one run took; nothing if it was skipped.
    pub seconds: Option<Seconds>,
    /// Kernels that one run launched; nothing where there are none, as on the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launches: Option<u64>,
    /// How long the host worked for one run, without what it waited; nothing on the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_seconds: Option<f64>,
    /// Bytes of the tensors that the launches of one run bound; nothing on the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Why it was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

/// What work is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Bytes read and written.
    Bytes,
    /// Additions and multiplications, of the dense operation where a sparse one does the same with
    /// fewer.
    Flops,
    /// Entries of a tensor.
    Entries,
    /// Tokens.
    Tokens,
}

/// Times of the runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    /// The middle one.
    pub median: f64,
    /// The shortest.
    pub fastest: f64,
    /// The longest.
    pub slowest: f64,
    /// How many there were.
    pub runs: usize,
}

impl Seconds {
    /// Of at least one run; of none, infinite.
    pub(crate) fn of(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        let at = |i: usize| seconds.get(i).copied().unwrap_or(f64::INFINITY);
        Self {
            median: at(seconds.len() / 2),
            fastest: at(0),
            slowest: at(seconds.len().saturating_sub(1)),
            runs: seconds.len(),
        }
    }
}

impl Row {
    pub(super) fn new(name: &str, shape: String, amount: f64, unit: Unit) -> Self {
        Self {
            name: name.into(),
            shape,
            amount,
            unit,
            seconds: None,
            launches: None,
            host_seconds: None,
            bytes: None,
            skipped: None,
        }
    }

    /// Units a second by the median; 0 if it was skipped.
    pub(crate) fn rate(&self) -> f64 {
        self.seconds.map_or(0.0, |seconds| self.amount / seconds.median)
    }

    /// [`Row::rate`] with its unit.
    pub(crate) fn rate_text(&self) -> String {
        let (rate, unit) = match self.unit {
            Unit::Bytes => (self.rate() / 1e9, "GB/s"),
            Unit::Flops => (self.rate() / 1e9, "GFLOP/s"),
            Unit::Entries => (self.rate() / 1e6, "M/s"),
            Unit::Tokens => (self.rate(), "tokens/s"),
        };
        match rate {
            rate if rate >= 100.0 => format!("{rate:.0} {unit}"),
            rate if rate >= 1.0 => format!("{rate:.1} {unit}"),
            rate => format!("{rate:.2} {unit}"),
        }
    }
}

impl BenchReport {
    pub(super) fn new(device: &Device, golden_cases: usize, rows: Vec<Row>) -> Self {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self {
            version: VERSION,
            gossamer: env!("CARGO_PKG_VERSION").into(),
            time,
            machine: Machine::this(),
            device: DeviceInfo::of(device),
            golden_cases,
            rows,
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] where it is no report, or one of another version.
    pub fn load(path: &Path) -> Result<Self> {
        let wrong = |message: String| Error::file(path, message);
        let value: serde_json::Value =
            serde_json::from_slice(&read_unmarked(path)?).map_err(|e| wrong(format!("is no report: {e}")))?;
        match value["version"].as_u64() {
            Some(version) if version == u64::from(VERSION) => {}
            Some(version) => {
                return Err(wrong(format!(
                    "is a report of version {version}, which does not compare with version {VERSION}"
                )));
            }
            None => return Err(wrong("is no report: it has no version".into())),
        }
        let report: Self = serde_json::from_value(value).map_err(|e| wrong(format!("is no report: {e}")))?;
        let bad = report.rows.iter().find(|row| {
            let seconds = row.seconds.map_or([1.0; 3], |s| [s.median, s.fastest, s.slowest]);
            !(row.amount > 0.0 && row.amount.is_finite() && seconds.iter().all(|s| *s > 0.0 && s.is_finite()))
        });
        match bad {
            Some(row) => Err(wrong(format!("the numbers of {} {} are impossible", row.name, row.shape))),
            None => Ok(report),
        }
    }

    /// Writes it as JSON, whole or not at all.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::file(path, e.to_string()))?;
        write_atomic(path, |out| writeln!(out, "{text}").map_err(|e| Error::io(path, e)))
    }
}

impl Machine {
    fn this() -> Self {
        let requested = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let system = System::new_with_specifics(requested).ok();
        let processor = system.as_ref().and_then(|s| s.cpus().first()).map(|cpu| cpu.brand().trim().to_string());
        Self {
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            processor: processor.unwrap_or_default(),
            threads: rayon::current_num_threads(),
            memory: system.as_ref().map_or(0, System::total_memory),
        }
    }
}

impl DeviceInfo {
    fn of(device: &Device) -> Self {
        if let Device::Gpu(gpu) = device {
            let info = gpu.info();
            return Self {
                name: info.name.clone(),
                backend: info.backend.to_string(),
                driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
                kind: format!("{:?}", info.device_type),
                subgroups: gpu.subgroups(),
                tiles: tiles(gpu).ok(),
            };
        }
        let processor = Machine::this().processor;
        Self {
            name: if processor.is_empty() { device.describe() } else { processor },
            backend: "Cpu".into(),
            driver: String::new(),
            kind: "Cpu".into(),
            subgroups: false,
            tiles: None,
        }
    }
}

fn tiles(gpu: &Gpu) -> Result<[(usize, usize); 3]> {
    let mut shapes = [(0, 0); 3];
    for (shape, output) in shapes.iter_mut().zip(OutputShape::ALL) {
        *shape = linear::tile(gpu, output)?.shape();
    }
    Ok(shapes)
}

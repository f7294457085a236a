//! How much main memory is available.

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// Bytes of main memory that this process can still take without swapping: what the machine has
/// available or, where a container or a control group allows less, what remains of that. `None` if
/// the system does not say.
///
/// Under a control group, memory that only caches files counts as free, since the system gives it
/// up first.
pub fn host_available() -> Option<u64> {
    let mut system = System::new().ok()?;
    system.refresh_memory();
    let machine = Some(system.available_memory()).filter(|&bytes| bytes > 0);

    let pid = Pid::from_u32(std::process::id());
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, ProcessRefreshKind::nothing());
    let limits = system.process(pid).and_then(|process| process.cgroup_limits()).or_else(|| system.cgroup_limits());
    let allowed = limits.map(|limits| limits.total_memory.saturating_sub(limits.rss));

    machine.into_iter().chain(allowed).min()
}

/// A number of bytes for people, in powers of 1024, to one decimal.
///
/// ```
/// use gossamer::train::memory::human_bytes;
/// assert_eq!(human_bytes(1023), "1023 B");
/// assert_eq!(human_bytes(1536), "1.5 KiB");
/// ```
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would round to 1024.0 belongs to the next unit.
    while amount >= 1023.95 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

use std::path::PathBuf;

use crate::Result;
use crate::check::{self, Comparison};
use crate::device::Device;
use crate::observer::{Observer, Stage};

/// What the checks of a device found.
#[derive(Clone, Copy, Debug)]
pub struct CheckResult {
    /// Operations compared.
    pub operations: usize,
    /// Golden cases compared.
    pub cases: usize,
    /// Quantities beyond their tolerance.
    pub failures: usize,
}

/// Compares every operation, the golden cases that are built in, and those in `folders` with their
/// expected numbers; given `only`, these operations alone. `print` receives each line as soon as it
/// is known.
///
/// # Errors
/// Returns an error if a case cannot be read or the device fails.
pub fn check(
    device: &Device,
    only: &[String],
    folders: &[PathBuf],
    observer: &Observer,
    print: &mut dyn FnMut(&str),
) -> Result<CheckResult> {
    let mut cases = if only.is_empty() { check::built_in() } else { Vec::new() };
    for folder in folders {
        cases.push(check::Case::folder(folder)?);
    }
    let operations = check::operations(device, only)?;
    let mut failures = print_comparisons("operations", &operations, print);
    for (done, case) in cases.iter().enumerate() {
        let total = Some(cases.len() as u64);
        observer.advance(&Stage { name: "checking golden cases", done: done as u64, total, unit: "cases" })?;
        failures += print_comparisons(&case.name, &check::run(case, device)?, print);
    }
    Ok(CheckResult { operations: operations.len(), cases: cases.len(), failures })
}

/// Prints a line for each comparison, and counts those that failed.
fn print_comparisons(name: &str, comparisons: &[Comparison], print: &mut dyn FnMut(&str)) -> usize {
    print(&format!("\n{name}"));
    for v in comparisons {
        let result = if v.passed() { "ok  " } else { "FAIL" };
        let numbers = format!("{:>9.2e} of {:.0e}", v.error, v.tolerance);
        print(&format!("  {result}  {:<28} {numbers}  {}", v.quantity, v.at));
    }
    comparisons.iter().filter(|comparison| !comparison.passed()).count()
}

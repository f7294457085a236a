use crate::Result;
use crate::device::{Device, adapters};
use crate::report::Report;
use crate::train::memory::human_bytes;

/// The CPU and the graphics adapters of this machine, with what they are capable of.
///
/// # Errors
/// Returns an error if the list has no JSON form.
pub fn devices() -> Result<Report> {
    let list = adapters();
    let mut report = Report::of(&list)?.fact("cpu", "", Device::cpu().describe());
    for a in &list {
        report = report.fact(
            &format!("gpu:{}", a.index),
            "",
            format!("{} ({}, {}, {})", a.name, a.backend, a.kind, a.driver),
        );
        if !a.computes {
            report = report.fact("", "", "has no compute shaders, so that gossamer cannot use it");
        }
        let [binding, buffer, shared] =
            [a.largest_binding, a.largest_buffer, a.workgroup_memory.into()].map(human_bytes);
        let features = if a.features.is_empty() { "none".into() } else { a.features.join(", ") };
        let (low, high) = a.subgroup;
        report = report
            .fact(
                "",
                "",
                format!("binds {binding} of a buffer of at most {buffer}, {} buffers a kernel", a.storage_buffers),
            )
            .fact(
                "",
                "",
                format!("workgroups of {} with {shared}, subgroups of {low} to {high}", a.workgroup_invocations),
            )
            .fact("", "", format!("optional features: {features}"));
    }
    if list.is_empty() {
        report = report.note("no graphics adapter or driver found; everything runs on the CPU device");
    }
    Ok(report)
}

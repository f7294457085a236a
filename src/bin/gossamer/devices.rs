//! `gossamer devices`.

use std::io::Write;

use anyhow::Result;
use gossamer::device::{Device, adapters};
use gossamer::train::memory::human_bytes;

#[derive(clap::Args)]
pub struct Args {
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let list = adapters();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&list)?)?;
        return Ok(());
    }
    writeln!(out, "cpu     {}", Device::cpu().describe())?;
    for a in &list {
        writeln!(out, "gpu:{}   {} ({}, {}, {})", a.index, a.name, a.backend, a.kind, a.driver)?;
        if !a.computes {
            writeln!(out, "        has no compute shaders, so that gossamer cannot use it")?;
        }
        writeln!(
            out,
            "        binds {} of a buffer of at most {}, {} buffers a kernel",
            human_bytes(a.largest_binding),
            human_bytes(a.largest_buffer),
            a.storage_buffers
        )?;
        writeln!(
            out,
            "        workgroups of {} with {}, subgroups of {} to {}",
            a.workgroup_invocations,
            human_bytes(a.workgroup_memory.into()),
            a.subgroup.0,
            a.subgroup.1
        )?;
        let features = if a.features.is_empty() { "none".into() } else { a.features.join(", ") };
        writeln!(out, "        optional features: {features}")?;
    }
    if list.is_empty() {
        writeln!(out, "no graphics adapter or driver found; everything runs on the CPU device")?;
    }
    Ok(())
}

//! Writes every variant of every kernel into a folder, for other compilers and validators to read:
//! the WGSL, with and without subgroup operations, and what naga translates it to with every kind of
//! pipeline constants, checked and unchecked SPIR-V and both dialects of GLSL. `variants.json` lists
//! them. `scripts/drivers` is who reads it.
//!
//! `cargo run --release --example shader_variants -- FOLDER`

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;
use gossamer::ops::SHADERS;
use gossamer::ops::linear::Tile;
use naga::ShaderStage::Compute;
use naga::back::{glsl, pipeline_constants::process_overrides, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use serde::Serialize;

#[derive(Parser)]
struct Args {
    /// Where everything goes
    folder: PathBuf,
}

/// Pipeline constants by name.
type Constants = BTreeMap<String, f64>;

/// A row of `variants.json`.
#[derive(Serialize)]
struct Variant {
    wgsl: String,
    kernel: &'static str,
    subgroups: bool,
    constants: Vec<Constants>,
}

fn main() -> Result<()> {
    let Args { folder } = Args::parse();
    fs::create_dir_all(&folder)?;
    let mut variants = Vec::new();
    for shader in SHADERS {
        for kernel in shader.kernels() {
            let forms = [shader.wgsl(kernel, false)?, shader.wgsl(kernel, true)?];
            for (subgroups, text) in [false, true].into_iter().zip(&forms) {
                if subgroups && forms[0] == forms[1] {
                    continue;
                }
                let suffix = if subgroups { ".subgroups" } else { "" };
                let name = format!("{}.{kernel}{suffix}", shader.name);
                fs::write(folder.join(format!("{name}.wgsl")), text)?;
                let constants = translate(&folder, &name, kernel, text, subgroups).context(name.clone())?;
                variants.push(Variant { wgsl: format!("{name}.wgsl"), kernel, subgroups, constants });
            }
        }
    }
    fs::write(folder.join("variants.json"), serde_json::to_string_pretty(&variants)?)?;
    let pipelines: usize = variants.iter().map(|variant| variant.constants.len()).sum();
    println!("{} modules, {pipelines} pipelines", variants.len());
    Ok(())
}

/// Writes the translations, and returns the pipeline constants of each.
fn translate(folder: &Path, name: &str, kernel: &str, text: &str, subgroups: bool) -> Result<Vec<Constants>> {
    let module = naga::front::wgsl::parse_str(text).map_err(|e| anyhow!(e.emit_to_string(text)))?;
    let capabilities = if subgroups { Capabilities::SUBGROUP } else { Capabilities::empty() };
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .map_err(|e| anyhow!(e.emit_to_string(text)))?;
    let mut overrides: Vec<_> = module.overrides.iter().filter_map(|(_, o)| o.name.as_deref()).collect();
    overrides.sort_unstable();
    let all = constants(&overrides)?;
    for (i, constants) in all.iter().enumerate() {
        let constants = constants.iter().map(|(name, value)| (name.clone(), *value)).collect();
        let (module, info) = process_overrides(&module, &info, Some((Compute, kernel)), &constants)?;
        for checked in [true, false] {
            let form = if checked { "checked" } else { "trusted" };
            let words = to_spirv(&module, &info, kernel, checked)?;
            fs::write(folder.join(format!("{name}.{i}.{form}.spv")), bytemuck::cast_slice(&words))?;
        }
        // wgpu has no subgroup operations through OpenGL.
        for version in [glsl::Version::Desktop(430), glsl::Version::new_gles(310)] {
            if !subgroups {
                let form = if version.is_es() { "es" } else { "desktop" };
                fs::write(folder.join(format!("{name}.{i}.{form}.comp")), to_glsl(&module, &info, kernel, version)?)?;
            }
        }
    }
    Ok(all)
}

/// Values that operations give to these constants: all, or where these are many, the ends and some
/// between.
fn constants(overrides: &[&str]) -> Result<Vec<Constants>> {
    let set = |values: &[(&str, u32)]| values.iter().map(|(name, value)| (name.to_string(), (*value).into())).collect();
    let head = |width: u32| {
        let quads = width.div_ceil(4);
        [("D", width), ("QUADS", quads), ("TILE", (480 / quads).min(64))]
    };
    let widths = [1, 6, 16, 64, 128];
    Ok(match overrides {
        [] => vec![Constants::new()],
        ["D"] => widths.iter().map(|width| set(&head(*width)[..1])).collect(),
        ["D", "QUADS", "TILE"] => widths.iter().map(|width| set(&head(*width))).collect(),
        // The others follow from two of them.
        ["DEPTH", "EACH", "FOURS", "PITCH", "SIDE"] => Tile::ALL.iter().map(|tile| set(&tile.constants())).collect(),
        ["LANES"] => [16, 64, 256].iter().map(|lanes| set(&[("LANES", *lanes)])).collect(),
        others => bail!("no values are listed for the constants {others:?}"),
    })
}

/// As wgpu does for Vulkan 1.1, checked and not.
fn to_spirv(module: &naga::Module, info: &ModuleInfo, kernel: &str, checked: bool) -> Result<Vec<u32>> {
    let policy = if checked { BoundsCheckPolicy::Restrict } else { BoundsCheckPolicy::Unchecked };
    let zeroed = match checked {
        true => spv::ZeroInitializeWorkgroupMemoryMode::Polyfill,
        false => spv::ZeroInitializeWorkgroupMemoryMode::None,
    };
    let options = spv::Options {
        lang_version: (1, 3),
        bounds_check_policies: BoundsCheckPolicies { index: policy, buffer: policy, ..Default::default() },
        zero_initialize_workgroup_memory: zeroed,
        force_loop_bounding: checked,
        emit_int_div_checks: checked,
        ..Default::default()
    };
    let pipeline = spv::PipelineOptions { shader_stage: Compute, entry_point: kernel.into() };
    Ok(spv::write_vec(module, info, &options, Some(&pipeline))?)
}

fn to_glsl(module: &naga::Module, info: &ModuleInfo, kernel: &str, version: glsl::Version) -> Result<String> {
    let pipeline = glsl::PipelineOptions { shader_stage: Compute, entry_point: kernel.into(), multiview: None };
    let (options, mut out) = (glsl::Options { version, ..Default::default() }, String::new());
    glsl::Writer::new(&mut out, module, info, &options, &pipeline, Default::default())?.write()?;
    Ok(out)
}

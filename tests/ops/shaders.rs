//! Every shader parses, validates without optional capabilities, translates to what the drivers of
//! all backends eat, and keeps to the limits that every adapter grants; its form for subgroups
//! likewise, on the backends that have them. The rules are those that [`gossamer::device::Launch`]
//! relies on.

use std::collections::BTreeSet;

use gossamer::ops::SHADERS;
use gossamer::ops::linear::{self, Tile};
use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ShaderStage, TypeInner};

/// What a shader must not exceed: WebGPU's default limits, and the size of one parameter block.
const INVOCATIONS: u32 = 256;
const WORKGROUP_BYTES: u32 = 16 * 1024;
const STORAGE_BUFFERS: usize = 8;
const PARAMETER_WORDS: usize = 64;
/// Of a table of parameters: what one launch may take.
const TABLE_BYTES: u32 = 1 << 13;

/// The names of the entry points of a shader that keeps all the rules, or the first rule that it
/// breaks.
fn check(wgsl: &str) -> Result<Vec<String>, String> {
    check_form(wgsl, false)
}

/// The same of a shader's form with or without subgroups.
fn check_form(wgsl: &str, subgroups: bool) -> Result<Vec<String>, String> {
    let module = naga::front::wgsl::parse_str(wgsl).map_err(|e| e.emit_to_string(wgsl))?;
    let capabilities = if subgroups { Capabilities::SUBGROUP } else { Capabilities::empty() };
    let info =
        Validator::new(ValidationFlags::all(), capabilities).validate(&module).map_err(|e| e.emit_to_string(wgsl))?;
    if let Some((_, constant)) = module.overrides.iter().find(|(_, o)| o.init.is_none()) {
        return Err(format!("override {:?} has no default", constant.name));
    }
    if module.entry_points.is_empty() {
        return Err("no entry points".into());
    }
    for entry in &module.entry_points {
        check_entry(&module, &info, &entry.name, &[], subgroups).map_err(|e| format!("{}: {e}", entry.name))?;
    }
    Ok(module.entry_points.iter().map(|e| e.name.clone()).collect())
}

fn check_entry(
    module: &Module,
    info: &ModuleInfo,
    name: &str,
    constants: &[(&str, u32)],
    subgroups: bool,
) -> Result<(), String> {
    let stage = ShaderStage::Compute;
    let constants = constants.iter().map(|(name, value)| (name.to_string(), f64::from(*value))).collect();
    let (module, info) =
        naga::back::pipeline_constants::process_overrides(module, info, Some((stage, name)), &constants)
            .map_err(|e| e.to_string())?;
    let index = module.entry_points.iter().position(|e| e.name == name).ok_or("lost with the overrides")?;
    let invocations: u32 = module.entry_points[index].workgroup_size.iter().product();
    if invocations > INVOCATIONS {
        return Err(format!("{invocations} invocations a workgroup"));
    }
    check_globals(&module, &info, index)?;
    translate(&module, &info, name, subgroups)
}

/// Workgroup memory, and bindings: parameters of plain scalars at 0, storage buffers at 1, 2, …
/// without a gap.
fn check_globals(module: &Module, info: &ModuleInfo, entry: usize) -> Result<(), String> {
    let mut layouts = naga::proc::Layouter::default();
    layouts.update(module.to_ctx()).map_err(|e| e.to_string())?;
    let (mut memory, mut buffers) = (0, Vec::new());
    for (handle, global) in module.global_variables.iter() {
        if info.get_entry_point(entry)[handle].is_empty() {
            continue;
        }
        let name = global.name.as_deref().unwrap_or("unnamed");
        let binding = global.binding.as_ref().map(|b| (b.group, b.binding));
        match global.space {
            AddressSpace::WorkGroup => memory += layouts[global.ty].size.next_multiple_of(16),
            AddressSpace::Private => {}
            AddressSpace::Uniform if binding == Some((0, 0)) => {
                if !is_parameter_block(module, &module.types[global.ty].inner) {
                    return Err(format!("{name} is not a struct of at most {PARAMETER_WORDS} four-byte scalars"));
                }
            }
            AddressSpace::Storage { .. } if binding.is_some_and(|(group, _)| group == 0) => {
                buffers.extend(binding.map(|(_, number)| number));
            }
            _ => return Err(format!("{name} ({:?}) is bound to {binding:?}", global.space)),
        }
    }
    if memory > WORKGROUP_BYTES {
        return Err(format!("{memory} bytes of workgroup memory"));
    }
    buffers.sort_unstable();
    if buffers.len() > STORAGE_BUFFERS {
        return Err(format!("{} storage buffers", buffers.len()));
    }
    if !buffers.iter().copied().eq(1..=buffers.len() as u32) {
        return Err(format!("storage buffers are bound to {buffers:?}, not to 1, 2, …"));
    }
    Ok(())
}

/// A struct of scalars, or one array of such structs.
fn is_parameter_block(module: &Module, inner: &TypeInner) -> bool {
    let four_bytes = |ty| matches!(module.types[ty].inner, TypeInner::Scalar(scalar) if scalar.width == 4);
    let TypeInner::Struct { members, span } = inner else { return false };
    let row = |ty| match module.types[ty].inner {
        TypeInner::Array { base, .. } => matches!(&module.types[base].inner, TypeInner::Struct { members, .. }
            if members.iter().all(|m| four_bytes(m.ty))),
        _ => false,
    };
    match &members[..] {
        [table] if row(table.ty) => *span <= TABLE_BYTES,
        _ => members.len() <= PARAMETER_WORDS && members.iter().all(|m| four_bytes(m.ty)),
    }
}

fn translate(module: &Module, info: &ModuleInfo, name: &str, subgroups: bool) -> Result<(), String> {
    let stage = ShaderStage::Compute;
    // As wgpu does where the driver does not check indices itself.
    let checked = BoundsCheckPolicies {
        index: BoundsCheckPolicy::Restrict,
        buffer: BoundsCheckPolicy::Restrict,
        ..Default::default()
    };

    let options = spv::Options { bounds_check_policies: checked, ..Default::default() };
    let pipeline = spv::PipelineOptions { shader_stage: stage, entry_point: name.into() };
    let words = spv::write_vec(module, info, &options, Some(&pipeline)).map_err(|e| format!("SPIR-V: {e}"))?;

    let lang_version = if subgroups { (2, 3) } else { (2, 0) };
    let options = msl::Options { lang_version, bounds_check_policies: checked, ..Default::default() };
    let pipeline = msl::PipelineOptions { entry_point: Some((stage, name.into())), ..Default::default() };
    let (metal, translated) = msl::write_string(module, info, &options, &pipeline).map_err(|e| format!("MSL: {e}"))?;
    for name in translated.entry_point_names {
        name.map_err(|e| format!("MSL: {e}"))?;
    }

    let shader_model = if subgroups { hlsl::ShaderModel::V6_0 } else { hlsl::ShaderModel::V5_1 };
    let (options, mut direct) = (hlsl::Options { shader_model, ..Default::default() }, String::new());
    let pipeline = hlsl::PipelineOptions { entry_point: Some((stage, name.into())) };
    let translated = hlsl::Writer::new(&mut direct, &options, &pipeline)
        .write(module, info, None)
        .map_err(|e| format!("HLSL: {e}"))?;
    for name in translated.entry_point_names {
        name.map_err(|e| format!("HLSL: {e}"))?;
    }

    let pipeline = glsl::PipelineOptions { shader_stage: stage, entry_point: name.into(), multiview: None };
    let versions = [glsl::Version::Desktop(430), glsl::Version::new_gles(310)];
    // No subgroups through wgpu's OpenGL.
    for version in versions.into_iter().filter(|_| !subgroups) {
        let (options, mut open) = (glsl::Options { version, ..Default::default() }, String::new());
        glsl::Writer::new(&mut open, module, info, &options, &pipeline, Default::default())
            .and_then(|mut writer| writer.write())
            .map_err(|e| format!("GLSL {version}: {e}"))?;
        if open.is_empty() {
            return Err(format!("GLSL {version}: nothing came out"));
        }
    }
    match words.is_empty() || metal.is_empty() || direct.is_empty() {
        true => Err("nothing came out".into()),
        false => Ok(()),
    }
}

#[test]
fn every_shader_runs_everywhere() {
    let mut broken = Vec::new();
    let mut with_subgroups = 0;
    for shader in SHADERS {
        with_subgroups += usize::from(shader.uses_subgroups().unwrap());
        assert!(!shader.kernels().is_empty(), "{} has no kernels", shader.name);
        for kernel in shader.kernels() {
            for subgroups in [false, true] {
                let form = shader.wgsl(kernel, subgroups).map_err(|e| e.to_string());
                let kernels = form.and_then(|wgsl| check_form(&wgsl, subgroups));
                if !kernels.as_ref().is_ok_and(|kernels| kernels.iter().any(|name| name == kernel)) {
                    broken.push(format!("{}::{kernel}, subgroups {subgroups}: {kernels:?}", shader.name));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(with_subgroups >= 6, "{with_subgroups} shaders have a form for subgroups");
}

#[test]
fn every_tile_of_the_product_runs_everywhere() {
    let wgsl = linear::SHADER.wgsl("product", false).unwrap();
    let module = naga::front::wgsl::parse_str(&wgsl).unwrap();
    let info = Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module).unwrap();
    for tile in Tile::ALL {
        assert_eq!(check_entry(&module, &info, "product", &tile.constants(), false), Ok(()), "{tile:?}");
    }
    let refused = check_entry(&module, &info, "product", &[("SIDE", 32)], false);
    assert_eq!(refused, Err("1024 invocations a workgroup".to_string()));
}

#[test]
fn every_file_is_listed_once() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/shaders");
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(folder).expect(folder) {
        let path = entry.expect(folder).path();
        if path.is_file() {
            files.insert(path.file_name().expect("a name").to_string_lossy().into_owned());
        }
    }
    let listed: BTreeSet<_> = SHADERS.iter().map(|shader| format!("{}.wgsl", shader.name)).collect();
    assert_eq!(files, listed);
    assert_eq!(listed.len(), SHADERS.len(), "a shader is listed twice");
}

#[test]
fn broken_shaders_are_seen() {
    let refused = |wgsl: &str, reason: &str| {
        let message = check(wgsl).expect_err(reason);
        assert!(message.contains(reason), "{message} should say {reason}");
    };
    let good = "
        struct P { n: u32, scale: f32 }
        override TILE: u32 = 64u;
        @group(0) @binding(0) var<uniform> p: P;
        @group(0) @binding(1) var<storage, read> a: array<f32>;
        @group(0) @binding(2) var<storage, read_write> b: array<f32>;
        var<workgroup> tile: array<f32, TILE>;
        @compute @workgroup_size(TILE) fn f(@builtin(local_invocation_index) i: u32) {
            tile[i] = a[i] * p.scale;
            workgroupBarrier();
            if i < p.n { b[i] = tile[i ^ 1u]; }
        }
        @compute @workgroup_size(1) fn g() { b[0] = 1.0; }";
    // `g` uses binding 2 without binding 1: right for no launch. Alone, `f` is sound.
    refused(good, "g: storage buffers are bound to [2]");
    let good = &good[..good.rfind("@compute").unwrap()];
    assert_eq!(check(good), Ok(vec!["f".to_string()]));

    refused("", "no entry points");
    refused(&good.replace("if i < p.n {", "if i < p.n"), "expected");
    refused(&good.replace("tile[i] = a[i]", "tile[i] = i + a[i]"), "f32");
    refused(&good.replace("a[i] * p.scale;", "f32(f64(a[i]));"), "f64");
    refused(&good.replace("a[i] * p.scale;", "subgroupAdd(a[i]);"), "SUBGROUP");
    refused(&good.replace("TILE: u32 = 64u", "TILE: u32"), "no default");
    refused(&good.replace("array<f32, TILE>", "array<f32, 17 * 256>"), "17408 bytes of workgroup memory");
    refused(&good.replace("64u", "257u"), "257 invocations");
    refused(&good.replace("scale: f32", "scale: vec2<f32>").replace("p.scale", "p.scale.x"), "four-byte scalars");
    let table =
        good.replace("struct P {", "struct R { n: u32, scale: f32, a: u32, b: u32 } struct P { rows: array<R, 600>,");
    refused(&table, "four-byte scalars");
    let table =
        table.replace(", n: u32, scale: f32 }\n        override", " }\n        override").replace("p.n", "p.rows[0].n");
    let table = table.replace("p.scale", "p.rows[1].scale");
    refused(&table, "four-byte scalars");
    assert_eq!(check(&table.replace("600", "512")), Ok(vec!["f".to_string()]));
    refused(&good.replace("@binding(0)", "@binding(3)"), "is bound to Some((0, 3))");
    refused(&good.replace("@binding(2)", "@binding(3)"), "bound to [1, 3]");

    let buffers: String =
        (1..=9).map(|i| format!("@group(0) @binding({i}) var<storage, read_write> b{i}: array<f32>;\n")).collect();
    let writes: String = (1..=9).map(|i| format!("b{i}[0] = 1.0;")).collect();
    refused(&format!("{buffers} @compute @workgroup_size(1) fn f() {{ {writes} }}"), "9 storage buffers");
    let writes = writes.replace("b9[0] = 1.0;", "");
    assert!(check(&format!("{buffers} @compute @workgroup_size(1) fn f() {{ {writes} }}")).is_ok());
}

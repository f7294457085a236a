//! The golden cases pass on both devices, and every kind of planted error is seen.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use gossamer::check::{self, Case, CaseKind, Comparison};
use gossamer::device::{Device, Gpu, GpuOptions, Shader};
use gossamer::files::{HostTensor, load_tensors, save_tensors};
use gossamer::ops::SHADERS;
use gossamer::ops::linear::Tile;
use tempfile::TempDir;

const FORWARD: [&str; 4] = ["loss", "logits, activations", "gradients", "activation gradients"];
const TRAIN: [&str; 6] =
    ["losses", "gradient rms", "lr, densities", "nonzero counts", "weights at the end", "zero pattern"];
const BRIDGE: [&str; 5] =
    ["terms of every site", "logits", "gradients, sparse model", "gradients, bridges", "gradients, constant targets"];
const PRUNE: [&str; 3] = ["task loss, total", "kept nodes", "gradients of tau"];

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case)
}

fn passes(case: &Case, device: &Device) -> Vec<Comparison> {
    let comparisons = check::run(case, device).unwrap();
    let quantities: Vec<_> = comparisons.iter().map(|v| v.quantity.as_str()).collect();
    let expected = match case.kind {
        CaseKind::Forward => FORWARD.to_vec(),
        CaseKind::Train => TRAIN.to_vec(),
        CaseKind::Prune => PRUNE.to_vec(),
        CaseKind::Bridge => BRIDGE.to_vec(),
    };
    assert_eq!(quantities, expected, "{}", case.name);
    for v in &comparisons {
        assert!(v.passed(), "{}: {} is off by {:.3e} at {}", case.name, v.quantity, v.error, v.at);
    }
    comparisons
}

#[test]
fn built_in_cases_pass_and_folders_give_the_same() {
    let cases = check::built_in();
    let count = |kind| cases.iter().filter(|c| c.kind == kind).count();
    assert_eq!([CaseKind::Forward, CaseKind::Train, CaseKind::Prune, CaseKind::Bridge].map(count), [5, 2, 1, 1]);
    for device in common::kernels() {
        for case in &cases {
            let folder = check::Case::folder(&golden(&case.name)).unwrap();
            assert_eq!(folder.kind, case.kind);
            for (a, b) in passes(case, &device).iter().zip(passes(&folder, &device)) {
                assert_eq!((a.error, &a.at), (b.error, &b.at), "{} {}", case.name, a.quantity);
            }
        }
    }
}

/// Kernels that check every index compute the same as those that trust themselves.
#[test]
fn checks_in_kernels_change_nothing() {
    for subgroups in [true, false] {
        let [checked, trusted] = [true, false].map(|checked| common::gpu(subgroups, checked));
        for case in check::built_in() {
            for (a, b) in passes(&case, &checked).iter().zip(passes(&case, &trusted)) {
                assert_eq!((a.error, &a.at), (b.error, &b.at), "{} {}", case.name, a.quantity);
            }
        }
    }
}

/// A case that expects too little would pass for nothing.
#[test]
fn cases_expect_every_number_of_the_model() {
    for case in check::built_in() {
        let names = |file: &str| -> BTreeSet<String> {
            load_tensors(golden(&case.name).join(file)).unwrap().into_keys().collect()
        };
        let expected = names("expected.safetensors");
        if case.kind == CaseKind::Bridge {
            let sparse = names("sparse/model.safetensors").into_iter().filter(|name| name != "final_logits_bias");
            let maps = names("bridges.safetensors");
            assert_eq!(maps.len(), 4 * 5, "an encoder and a decoder at each of five sites");
            let gradients =
                sparse.map(|p| format!("grad/sparse/{p}")).chain(maps.iter().map(|m| format!("grad/bridge/{m}")));
            assert_eq!(expected, gradients.chain(["dense_logits".into(), "sparse_logits".into()]).collect());
            continue;
        }
        let weights = names("model.safetensors");
        match case.kind {
            CaseKind::Forward | CaseKind::Bridge => {}
            CaseKind::Train => {
                assert_eq!(expected, weights, "{}", case.name);
                continue;
            }
            CaseKind::Prune => {
                assert_eq!(expected.len(), 2 * 8, "eight masks in each of two layers");
                continue;
            }
        }
        let of = |kind: &str| expected.iter().filter_map(|n| n.strip_prefix(kind)).collect::<BTreeSet<_>>();
        let layers = weights.iter().filter(|n| n.ends_with("mlp.c_fc.weight")).count();
        assert_eq!(of("act/").len(), 11 * layers + 1, "{}", case.name);
        assert_eq!(of("act/"), of("act_grad/"), "{}", case.name);
        let untrained = ["final_logits_bias"];
        let tied =
            if ["forward/dense_gpt2", "forward/gpt_neo"].contains(&case.name.as_str()) { "lm_head.weight" } else { "" };
        let trained = weights.iter().map(String::as_str).filter(|n| !untrained.contains(n) && *n != tied);
        assert_eq!(of("grad/"), trained.collect(), "{}", case.name);
        assert!(expected.contains("loss") && expected.contains("logits"));
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        match path.is_dir() {
            true => {
                std::fs::create_dir(to.join(&name)).unwrap();
                copy(&path, &to.join(name));
            }
            false => drop(std::fs::copy(path, to.join(name)).unwrap()),
        }
    }
}

/// A copy of a case that can be changed.
struct Copy(TempDir);

impl Copy {
    fn of(case: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy(&golden(case), folder.path());
        Self(folder)
    }

    fn change(self, file: &str, name: &str, change: impl FnOnce(&mut HostTensor)) -> Self {
        let path = self.0.path().join(file);
        let mut tensors = load_tensors(&path).unwrap();
        change(tensors.get_mut(name).unwrap());
        save_tensors(&path, &tensors, None).unwrap();
        self
    }

    fn change_log(self, step: usize, field: &str, factor: f64) -> Self {
        self.change_number(&format!("/log/{step}/{field}"), factor)
    }

    fn change_meta(self, field: &str, factor: f64) -> Self {
        self.change_number(&format!("/{field}"), factor)
    }

    /// Multiplies a number of `meta.json`, or counts a count up by one.
    fn change_number(self, pointer: &str, factor: f64) -> Self {
        let path = self.0.path().join("meta.json");
        let mut meta: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let number = meta.pointer_mut(pointer).unwrap();
        *number = match number.as_u64() {
            Some(count) => (count + 1).into(),
            None => (number.as_f64().unwrap() * factor).into(),
        };
        std::fs::write(path, meta.to_string()).unwrap();
        self
    }

    /// Exactly the comparison of `quantity` fails, and says where.
    fn fails_in(self, device: &Device, quantity: &str, at: &str) {
        let comparisons = check::run(&check::Case::folder(self.0.path()).unwrap(), device).unwrap();
        for v in comparisons {
            assert_eq!(v.passed(), v.quantity != quantity, "{quantity} planted, {} says {:.3e}", v.quantity, v.error);
            assert!(v.passed() || v.at.starts_with(at), "{quantity}: planted at {at}, seen at {}", v.at);
        }
    }
}

#[test]
fn planted_errors_fail() {
    const FILE: &str = "expected.safetensors";
    let largest = |t: &HostTensor| t.data.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    for device in &common::kernels() {
        let forward = || Copy::of("forward/paper");
        forward().change(FILE, "loss", |t| t.data[0] *= 1.0 + 3e-5).fails_in(device, FORWARD[0], "loss");
        let nudge = |t: &mut HostTensor| t.data[70] += 6e-5 * (1.0 + largest(t));
        forward().change(FILE, "logits", nudge).fails_in(device, FORWARD[1], "logits");
        forward().change(FILE, "act/0.mlp.post_act", nudge).fails_in(device, FORWARD[1], "0.mlp.post_act");
        let nan = |t: &mut HostTensor| t.data[3] = f32::NAN;
        forward().change(FILE, "act/final_resid", nan).fails_in(device, FORWARD[1], "final_resid: number 3");
        let short = |t: &mut HostTensor| {
            t.data.truncate(12 * 32);
            t.shape[0] = 1;
        };
        forward().change(FILE, "act/1.resid_in", short).fails_in(device, FORWARD[1], "1.resid_in: shape");
        let norm = |t: &HostTensor| t.data.iter().map(|v| v * v).sum::<f32>().sqrt();
        let turn = |t: &mut HostTensor| t.data[11] += 3e-4 * norm(t);
        let parameter = "transformer.h.1.attn.c_attn.weight";
        forward().change(FILE, &format!("grad/{parameter}"), turn).fails_in(device, FORWARD[2], parameter);
        forward().change(FILE, "act_grad/0.attn.v", turn).fails_in(device, FORWARD[3], "0.attn.v");

        let train = || Copy::of("train/paper_schedule");
        train().change_log(3, "loss", 1.0 + 3e-5).fails_in(device, TRAIN[0], "step 3");
        train().change_log(5, "grad_rms", 1.0 - 3e-5).fails_in(device, TRAIN[1], "step 5");
        train().change_log(4, "lr", 1.0 + 1e-9).fails_in(device, TRAIN[2], "step 4");
        train().change_log(2, "embed_density", 1.0 + 1e-9).fails_in(device, TRAIN[2], "step 2");
        train().change_log(6, "nonzero_matrix_weights", 1.0).fails_in(device, TRAIN[3], "step 6");
        let weight = "transformer.h.0.mlp.c_fc.weight";
        let grow = |t: &mut HostTensor| {
            let scale = largest(t);
            *t.data.iter_mut().find(|v| **v != 0.0).unwrap() += 3e-4 * scale;
        };
        train().change(FILE, weight, grow).fails_in(device, TRAIN[4], weight);
        let fill = |t: &mut HostTensor| *t.data.iter_mut().find(|v| **v == 0.0).unwrap() = 1e-7;
        train().change(FILE, weight, fill).fails_in(device, TRAIN[5], weight);

        let prune = || Copy::of("prune/two_layer");
        prune().change(FILE, "grad/1.mlp_neuron", turn).fails_in(device, PRUNE[2], "1.mlp_neuron");
        prune().change_meta("task_loss", 1.0 + 3e-5).fails_in(device, PRUNE[0], "task loss");
        prune().change_meta("active_nodes", 1.0).fails_in(device, PRUNE[1], "all masks");

        let bridge = || Copy::of("bridge/two_layer");
        // Both forms of the objective have the same gradients of the bridges.
        let map = copy_of_changed_map(device, turn);
        assert!(!map[3].passed() && !map[4].passed() && map[4].at == "dec.2.weight", "{:?}", map[4]);
        bridge().change_meta("cross_entropy", 1.0 + 3e-5).fails_in(device, BRIDGE[0], "cross_entropy");
        for term in ["nmse_enc", "nmse_dec", "kl_d2s", "kl_s2d"] {
            let number = format!("/per_site/{term}/3");
            bridge().change_number(&number, 1.0 - 3e-5).fails_in(device, BRIDGE[0], &format!("{term}/3"));
        }
        bridge().change(FILE, "dense_logits", nudge).fails_in(device, BRIDGE[1], "dense");
        let parameter = "transformer.h.1.mlp.c_fc.weight";
        bridge().change(FILE, &format!("grad/sparse/{parameter}"), turn).fails_in(device, BRIDGE[2], parameter);
    }
}

/// The comparisons on bridges where an expected gradient of one of them is changed.
fn copy_of_changed_map(device: &Device, turn: impl FnOnce(&mut HostTensor)) -> Vec<Comparison> {
    let case = Copy::of("bridge/two_layer").change("expected.safetensors", "grad/bridge/dec.2.weight", turn);
    check::run(&check::Case::folder(case.0.path()).unwrap(), device).unwrap()
}

/// The names of all entry points, as `shader::entry`.
fn entry_points() -> BTreeSet<String> {
    let names =
        |shader: &&Shader| shader.kernels().into_iter().map(|kernel| format!("{}::{kernel}", shader.name)).collect();
    SHADERS.iter().flat_map(|shader| -> Vec<String> { names(shader) }).collect()
}

/// A kernel that no row of the operations' table launches would not be checked.
#[test]
fn every_kernel_is_launched() {
    for subgroups in [true, false] {
        let device = common::gpu(subgroups, false);
        for comparison in check::operations(&device, &[]).unwrap() {
            assert!(
                comparison.passed(),
                "{} is off by {:.3e} at {}",
                comparison.quantity,
                comparison.error,
                comparison.at
            );
        }
        let Device::Gpu(gpu) = &device else { panic!("not a GPU") };
        let kernels = gpu.compiled_kernels().unwrap();
        let launched: BTreeSet<_> = kernels.iter().map(|name| name.split(' ').next().unwrap().to_string()).collect();
        assert_eq!(launched, entry_points());
        for tile in Tile::ALL {
            let [(side, a), (each, b)] = tile.constants();
            assert!(kernels.contains(&format!("linear::product {side}={a} {each}={b}")), "{tile:?}");
        }
        for norm in ["layer_norm::forward_bias", "rms_norm::backward_input"] {
            for lanes in [16, 64, 256] {
                assert!(kernels.contains(&format!("{norm} LANES={lanes}")), "{norm} {lanes}");
            }
        }
    }
}

#[test]
fn operations_pass_on_the_cpu_and_are_chosen_by_name() {
    let all = check::operations(&Device::cpu(), &[]).unwrap();
    assert_eq!(all.len(), SHADERS.len());
    assert!(all.iter().all(Comparison::passed), "{all:?}");
    let one = check::operations(&Device::cpu(), &["gelu".into()]).unwrap();
    assert_eq!(one.iter().map(|v| v.quantity.as_str()).collect::<Vec<_>>(), ["gelu"]);
    let unknown = check::operations(&Device::cpu(), &["gelo".into()]).unwrap_err().to_string();
    assert!(unknown.contains("`gelo`") && unknown.contains("gelu"), "{unknown}");
}

/// A kernel whose parameters are not those of its launch does not run.
#[test]
fn parameters_that_differ_from_the_launch_are_refused() {
    for (was, becomes, reason) in [
        ("n: u32", "count: u32", "`count: u32` at byte 0 in the shader is `n: u32` at byte 0 in the launch"),
        ("n: u32", "n: f32", "`n: f32` at byte 0 in the shader is `n: u32`"),
        ("n: u32", "n: u32, more: u32", "the shader has 2 parameters, the launch 1"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders"), folder.path());
        let path = folder.path().join("relu.wgsl");
        let used = if becomes.starts_with("count") { "p.count" } else { "u32(p.n)" };
        let text = std::fs::read_to_string(&path).unwrap().replace(was, becomes).replace("p.n", used);
        std::fs::write(&path, text).unwrap();
        let options = GpuOptions { shaders: Some(folder.path().into()), ..GpuOptions::from_env() };
        let gpu = Gpu::open_with(None, &options).unwrap();
        let error = check::operations(&Device::Gpu(gpu), &["relu".into()]).unwrap_err().to_string();
        assert!(error.contains("relu::forward") && error.contains(reason), "{error}");
    }
}

/// Errors that `check` once passed, planted into a copy of the shaders.
#[test]
fn errors_planted_in_kernels_are_seen() {
    for (operation, was, becomes) in [
        ("attention_decode", "+ j * p.heads * p.width + c", "+ j * p.width + c"),
        ("abs_topk", "magnitude == t && i < bound", "magnitude == t"),
        ("topk_logits", "kept[i] > 0.0", "kept[i] >= 0.0"),
        ("affine", "x[i] + shift[i]", "x[i] - shift[i]"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders"), folder.path());
        let options = || GpuOptions { shaders: Some(folder.path().into()), checked: false, ..GpuOptions::from_env() };
        let comparisons = || {
            let gpu = Gpu::open_with(None, &options()).unwrap();
            assert!(gpu.options().checked, "kernels of a folder are checked");
            check::operations(&Device::Gpu(gpu), &[operation.into()]).unwrap()
        };
        assert!(comparisons().iter().all(Comparison::passed), "{operation} as it is");
        plant(&folder.path().join(format!("{operation}.wgsl")), was, becomes);
        assert!(comparisons().iter().all(|comparison| !comparison.passed()), "{operation}: `{becomes}`");
    }
}

fn plant(path: &Path, was: &str, becomes: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(text.matches(was).count(), 1, "{}", path.display());
    std::fs::write(path, text.replace(was, becomes)).unwrap();
}

#[test]
fn a_folder_without_the_kernel_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let options = GpuOptions { shaders: Some(folder.path().into()), ..GpuOptions::from_env() };
    let gpu = Gpu::open_with(None, &options).unwrap();
    assert!(gpu.describe().ends_with(&format!("kernels of {}", folder.path().display())));
    let error = check::operations(&Device::Gpu(gpu), &["relu".into()]).unwrap_err().to_string();
    assert!(error.contains("relu.wgsl"), "{error}");
}

/// Wrong weights in the device's hands instead of wrong expectations.
#[test]
fn a_wrong_model_fails_everywhere() {
    let device = Device::cpu();
    let case = Copy::of("forward/sink_sparse").change("model.safetensors", "transformer.h.0.attn.c_attn.weight", |t| {
        t.data.iter_mut().for_each(|v| *v *= 1.01);
    });
    let comparisons = check::run(&check::Case::folder(case.0.path()).unwrap(), &device).unwrap();
    assert!(comparisons.iter().all(|v| !v.passed()));
}

#[test]
fn folders_that_are_no_cases_are_refused() {
    let empty = tempfile::tempdir().unwrap();
    assert!(check::Case::folder(empty.path()).err().unwrap().to_string().contains("meta.json"));
    std::fs::write(empty.path().join("meta.json"), "{\"batch\": 1}").unwrap();
    assert!(check::Case::folder(empty.path()).err().unwrap().to_string().contains("not a golden case"));
}

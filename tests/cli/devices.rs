//! Devices by name, machines without any driver, and `gossamer check`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use gossamer::files::{load_tensors, save_tensors};
use tempfile::tempdir;

use super::{fails, gossamer, succeeds, text, tiny};

/// As on a machine on which no driver is installed.
fn without_driver(command: &mut Command) -> &mut Command {
    let nowhere = "/nonexistent/driver.json";
    command.env("VK_DRIVER_FILES", nowhere).env("VK_ICD_FILENAMES", nowhere).env("WGPU_BACKEND", "vulkan")
}

fn adapters() -> Vec<serde_json::Value> {
    let output = gossamer(&["devices", "--json"]).output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).expect("valid JSON")
}

#[test]
fn devices_are_listed() {
    let list = adapters();
    assert!(!list.is_empty(), "the tests need an adapter; scripts/test installs one");
    let said = succeeds(&mut gossamer(&["devices"]));
    assert!(said.contains("cpu    CPU, "), "{said}");
    for (index, adapter) in list.iter().enumerate() {
        assert_eq!(adapter["index"], index);
        let name = adapter["name"].as_str().unwrap();
        assert!(said.contains(&format!("gpu:{index}  {name}")), "{said}");
        assert!(adapter["largest_binding"].as_u64().unwrap() >= 1 << 27);
        for key in ["backend", "driver", "kind", "computes", "features", "subgroup", "workgroup_memory"] {
            assert!(!adapter[key].is_null(), "{key}: {adapter}");
        }
    }
}

#[test]
fn unknown_devices_are_refused_by_name() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("run");
    for (name, culprit) in
        [("foo", "`foo`"), ("gpu:99", "`99`"), ("gpu:nosuch", "`nosuch`"), ("gpu:", "`gpu:`"), ("", "``")]
    {
        fails(tiny(&out, &[]).args(["--device", name]), &[culprit]);
        fails(&mut gossamer(&["check", "--device", name]), &[culprit]);
    }
    assert!(!out.exists());
}

#[test]
fn auto_takes_hardware_or_says_why_not() {
    let dir = tempdir().unwrap();
    let hardware = adapters().iter().any(|a| a["kind"] != "Cpu" && a["computes"] == true);
    let said = succeeds(tiny(&dir.path().join("run"), &[]).args(["--device", "auto"]));
    match hardware {
        true => assert!(said.contains("device      GPU "), "{said}"),
        false => {
            assert!(said.contains("the only graphics adapter is software"), "{said}");
            assert!(said.contains("using the CPU") && said.contains("device      CPU"), "{said}");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn without_a_driver_everything_runs_on_the_cpu() {
    let dir = tempdir().unwrap();
    let said = succeeds(without_driver(&mut gossamer(&["devices"])));
    assert!(said.contains("no graphics adapter or driver found"), "{said}");
    let said = succeeds(without_driver(tiny(&dir.path().join("run"), &[]).args(["--device", "auto"])));
    assert_eq!(said.matches("using the CPU").count(), 1, "{said}");
    assert!(said.contains("no graphics adapter found: using the CPU") && said.contains("device      CPU"), "{said}");
    let said = succeeds(without_driver(&mut gossamer(&["check", "--device", "auto"])));
    assert!(said.contains("no graphics adapter found: using the CPU") && said.contains("cases agree"), "{said}");
    for name in ["gpu", "gpu:0", "gpu:llvmpipe"] {
        let culprits = ["no graphics adapter or driver found", "--device cpu"];
        fails(without_driver(tiny(&dir.path().join("gpu"), &[]).args(["--device", name])), &culprits);
        fails(without_driver(&mut gossamer(&["check", "--device", name])), &culprits);
    }
}

#[test]
fn every_kind_of_vector_instructions_computes_what_it_should() {
    for kind in ["none", "avx2"] {
        let said = succeeds(gossamer(&["check", "--device", "cpu"]).env("GOSSAMER_SIMD", kind));
        assert!(said.contains("cases agree"), "{kind}: {said}");
        let none = kind == "none" && cfg!(target_arch = "x86_64");
        assert!(!none || said.contains("threads, no vectors"), "{said}");
    }
    let said = succeeds(gossamer(&["devices"]).env("GOSSAMER_SIMD", "avx9"));
    assert!(!cfg!(target_arch = "x86_64") || said.contains("GOSSAMER_SIMD=avx9 is none of"), "{said}");
}

#[test]
fn the_number_of_threads_changes_no_bit_with_any_kind_of_vector_instructions() {
    for kind in ["none", "avx2", "avx512"] {
        let runs = ["1", "2", "3"].map(|threads| {
            let dir = tempdir().unwrap();
            let out = dir.path().join("run");
            let mut run = tiny(&out, &["d_model=136", "n_head=17", "steps=6", "batch_size=12"]);
            succeeds(run.args(["--device", "cpu"]).envs([("GOSSAMER_SIMD", kind), ("RAYON_NUM_THREADS", threads)]));
            fs::read(out.join("checkpoints/step-6/model.safetensors")).unwrap()
        });
        assert!(runs[0] == runs[1] && runs[1] == runs[2], "{kind}");
    }
}

/// A copy of a golden case, with one number of one of its files changed.
fn planted(case: &str, file: &str, folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case);
    fs::create_dir_all(folder).unwrap();
    for entry in fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    let path = folder.join(file);
    let mut tensors = load_tensors(&path).unwrap();
    let number = tensors.values_mut().flat_map(|t| &mut t.data).find(|x| x.abs() > 1e-3).expect("a number");
    *number *= 1.5;
    save_tensors(&path, &tensors, None).unwrap();
    folder.to_path_buf()
}

#[test]
fn check_passes_on_both_devices() {
    let has_subgroups = adapters().iter().find(|a| a["computes"] == true).unwrap()["features"].to_string();
    let has_subgroups = has_subgroups.contains("subgroups");
    for (device, allowed) in [("cpu", "1"), ("gpu", "1"), ("gpu", "0")] {
        let said = succeeds(gossamer(&["check", "--device", device]).env("GOSSAMER_SUBGROUPS", allowed));
        assert!(said.contains("cases agree") && !said.contains("FAIL"), "{said}");
        let with = device == "gpu" && allowed == "1" && has_subgroups;
        assert_eq!(
            (said.contains("with subgroups"), said.contains("without subgroups")),
            (with, device == "gpu" && !with)
        );
    }
}

#[test]
fn check_sees_a_planted_error() {
    let dir = tempdir().unwrap();
    let sound = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/forward/paper");
    succeeds(&mut gossamer(&["check", "--device", "cpu", text(&sound)]));
    for (name, file) in [("expected", "expected.safetensors"), ("weight", "model.safetensors")] {
        let folder = planted("forward/paper", file, &dir.path().join(name));
        let output = gossamer(&["check", "--device", "cpu", text(&folder)]).output().unwrap();
        let said = super::finish(output);
        assert_eq!(said.0, Some(1), "{}", said.1);
        assert!(said.1.contains("FAIL") && said.1.contains("do not trust"), "{}", said.1);
    }
}

#[test]
fn check_refuses_a_folder_that_is_no_case() {
    let dir = tempdir().unwrap();
    let folder = dir.path().join("nothing");
    fails(&mut gossamer(&["check", "--device", "cpu", text(&folder)]), &["nothing"]);
    fs::create_dir(&folder).unwrap();
    fails(&mut gossamer(&["check", "--device", "cpu", text(&folder)]), &["meta.json"]);
    for meta in ["", "{}", "[]", "{\"batch\": 2}"] {
        fs::write(folder.join("meta.json"), meta).unwrap();
        fails(&mut gossamer(&["check", "--device", "cpu", text(&folder)]), &["meta.json"]);
    }
    let damaged = planted("forward/paper", "model.safetensors", &dir.path().join("damaged"));
    fs::write(damaged.join("model.safetensors"), "short").unwrap();
    fails(&mut gossamer(&["check", "--device", "cpu", text(&damaged)]), &["model.safetensors"]);
}

/// Drivers write warnings to standard error where there is no such variable.
#[cfg(target_os = "linux")]
#[test]
fn drivers_do_not_complain_where_there_is_no_desktop() {
    const COMPLAINT: &str = "XDG_RUNTIME_DIR";
    let without = |arguments: &[&str]| {
        let mut command = gossamer(arguments);
        succeeds(command.env_remove(COMPLAINT).env_remove("NODEVICE_SELECT").env_remove("WGPU_BACKEND"))
    };
    if !adapters().iter().any(|adapter| adapter["computes"] == true && adapter["backend"] != "gl") {
        return;
    }
    let case = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/forward/paper");
    for device in ["auto", "gpu", "gpu:0", "cpu"] {
        let said = without(&["eval", case, "--tokens", &format!("{case}/inputs.safetensors"), "--device", device]);
        assert!(!said.contains(COMPLAINT), "{device}: {said}");
    }
    assert!(!without(&["tasks", "list"]).contains(COMPLAINT));
}

/// Kernels from a folder take the place of the built-in ones, and what is wrong in them makes
/// `check` fail.
#[test]
fn kernels_can_come_from_a_folder() {
    let dir = tempdir().unwrap();
    let (source, shaders) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders"), dir.path().join("shaders"));
    fs::create_dir_all(shaders.join("include")).unwrap();
    for folder in ["", "include"] {
        for entry in fs::read_dir(source.join(folder)).unwrap().map(Result::unwrap).filter(|e| e.path().is_file()) {
            fs::copy(entry.path(), shaders.join(folder).join(entry.file_name())).unwrap();
        }
    }
    let check = || {
        let mut check = gossamer(&["check", "--device", "gpu", "--only", "relu,concat"]);
        check.env("GOSSAMER_SHADERS", &shaders);
        check
    };
    let said = succeeds(&mut check());
    assert!(said.contains("all 2 operations") && said.contains(&format!("kernels of {}", shaders.display())), "{said}");
    let relu = shaders.join("relu.wgsl");
    fs::write(&relu, fs::read_to_string(&relu).unwrap().replace("x[i] <= 0.0", "x[i] <= 1.0")).unwrap();
    fails(&mut check(), &["1 quantities are off"]);
    fs::remove_file(&relu).unwrap();
    fails(&mut check(), &["relu.wgsl"]);
    fails(&mut gossamer(&["check", "--device", "cpu", "--only", "relo"]), &["`relo` is no operation", "relu"]);
}

//! `gossamer bench`.

use std::fs;
use std::path::PathBuf;

use gossamer::bench::BenchReport;
use serde_json::json;
use tempfile::tempdir;

use crate::{fails, gossamer, succeeds, text};

/// A report of two rows, the first of which takes `seconds`.
fn report(name: &str, seconds: f64) -> serde_json::Value {
    let times = json!({ "median": seconds, "fastest": seconds, "slowest": seconds, "runs": 3 });
    json!({
        "version": 1, "gossamer": "0.1.0", "time": 0, "golden_cases": 7,
        "machine": { "system": "linux x86_64", "processor": "p", "threads": 2, "memory": 1 },
        "device": { "name": name, "backend": "Vulkan", "driver": "d", "kind": "DiscreteGpu" },
        "rows": [
            { "name": "matmul", "shape": "4 × 4 × 4", "amount": 2e9, "unit": "flops", "seconds": times },
            { "name": "matmul", "shape": "8 × 8 × 8", "amount": 1.0, "unit": "flops", "seconds": null, "skipped": "too long" },
        ],
    })
}

#[test]
fn the_cpu_is_measured_and_compared_with_itself() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("cpu.json");
    let said = succeeds(&mut gossamer(&["bench", "--quick", "--device", "cpu", "--out", text(&file)]));
    let read = BenchReport::load(&file).unwrap();
    for kind in [
        "memory",
        "matmul",
        "linear, sparse weights",
        "weight gradient",
        "AbsTopK",
        "weight top-k",
        "attention, forward",
        "attention, backward",
        "training step, dense",
        "training step, sparse",
        "generation",
    ] {
        let rows: Vec<_> = read.rows.iter().filter(|row| row.name == kind).collect();
        assert!(!rows.is_empty() && rows[0].seconds.is_some(), "{kind}: {said}");
        assert!(said.contains(kind), "{said}");
        for seconds in rows.iter().filter_map(|row| row.seconds) {
            assert!(seconds.fastest <= seconds.median && seconds.median <= seconds.slowest && seconds.runs >= 3);
        }
    }
    assert_eq!((read.device.backend.as_str(), read.golden_cases), ("Cpu", 9));
    assert!(!read.device.subgroups && read.device.tiles.is_none());
    let png = folder.path().join("a.png");
    let said = succeeds(&mut gossamer(&["bench", "compare", text(&file), text(&file), "--png", text(&png)]));
    assert!(said.contains("×1.00") && !said.contains("×1.01"), "{said}");
    assert!(fs::read(&png).unwrap().starts_with(b"\x89PNG"));
}

#[test]
fn ratios_are_those_of_the_rates() {
    let folder = tempdir().unwrap();
    let [a, b, c] = [("slow", 2.0), ("fast", 0.25), ("bad", -1.0)].map(|(name, seconds)| {
        let path = folder.path().join(format!("{name}.json"));
        fs::write(&path, report(name, seconds).to_string()).unwrap();
        path
    });
    let said = succeeds(&mut gossamer(&["bench", "compare", text(&a), text(&b)]));
    assert!(said.contains("1.0 GFLOP/s ×1.00") && said.contains("8.0 GFLOP/s ×8.00"), "{said}");
    assert!(said.lines().any(|line| line.starts_with("matmul: 8 × 8 × 8") && line.matches('–').count() == 2), "{said}");
    // The picture says what the others are compared with, and all values.
    let (slower, chart) = (folder.path().join("slower.json"), folder.path().join("chart.svg"));
    fs::write(&slower, report("slower", 1000.0).to_string()).unwrap();
    succeeds(&mut gossamer(&["bench", "compare", text(&a), text(&slower), "--chart", text(&chart)]));
    let svg = fs::read_to_string(&chart).unwrap();
    for shown in [">Speed relative to [1] slow (Vulkan)<", ">[2] slower (Vulkan)<", ">1.0 GFLOP/s ×1.00<", " ×0.0020<"]
    {
        assert!(svg.contains(shown), "{shown}: {svg}");
    }
    // Damaged, foreign and missing files are named.
    fails(&mut gossamer(&["bench", "compare", text(&c)]), &["bad.json", "matmul"]);
    fails(&mut gossamer(&["bench", "compare", text(&folder.path().join("none.json"))]), &["none.json"]);
    for wrong in ["", "{}", "[1]", r#"{"version": 9}"#, r#"{"version": 1}"#] {
        fs::write(&c, wrong).unwrap();
        fails(&mut gossamer(&["bench", "compare", text(&a), text(&c)]), &["bad.json"]);
    }
    fails(&mut gossamer(&["bench", "compare"]), &["REPORTS"]);
    fails(&mut gossamer(&["bench", "--device", "gpu:none such"]), &["none such"]);
    fails(&mut gossamer(&["bench", "--all", "--device", "cpu"]), &["--all"]);
}

#[test]
fn the_fastest_tiles_are_found_and_kept() {
    let folder = tempdir().unwrap();
    let tune = |device: &str, cache: &str| {
        succeeds(gossamer(&["bench", "--autotune", "--quick", "--device", device]).env("GOSSAMER_CACHE", cache))
    };
    let said = tune("gpu", text(folder.path()));
    let best: Vec<_> = said.lines().filter(|line| line.contains("; best ")).collect();
    assert_eq!(best.len(), 3, "{said}");
    let file = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let file = file.filter(|path| path.extension().is_some_and(|e| e == "json")).collect::<Vec<_>>();
    assert!(file.len() == 1 && said.contains(text(&file[0])), "{said}");
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(&file[0]).unwrap()).unwrap();
    for (name, line) in ["linear thin", "linear small", "linear large"].iter().zip(best) {
        let shape = ["32 × 32", "64 × 64", "128 × 128"][kept["choices"][name].as_u64().unwrap() as usize];
        assert!(line.ends_with(&format!("best {shape}")), "{name}: {line}, {kept}");
    }
    assert!(tune("gpu", "").contains("not kept"));
    fails(&mut gossamer(&["bench", "--autotune", "--out", "a.json"]), &["--out"]);
}

#[test]
fn the_shares_up_to_which_the_cpu_skips_zeros_are_found_and_kept() {
    let folder = tempdir().unwrap();
    let mut tune = gossamer(&["bench", "--autotune", "--quick", "--device", "cpu"]);
    let said = succeeds(tune.env("GOSSAMER_CACHE", folder.path()));
    // A slow machine says how far it is, too.
    let path = PathBuf::from(said.lines().find(|line| line.ends_with(".json")).unwrap());
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let choices = kept["choices"].as_object().unwrap();
    assert_eq!(choices.len(), 3, "{kept}");
    for (name, thousandths) in choices {
        let share = thousandths.as_u64().unwrap() as f64 / 1000.0;
        assert!(said.contains(&format!("{name} {share:.3} (")), "{name}: {said}, {kept}");
    }
}

//! The examples run and do what they say.

use std::path::PathBuf;
use std::process::Command;

/// Examples lie beside the folder of the test's own binary; `cargo test` builds them.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).unwrap();
    let path = profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} is not built: `cargo test` or `cargo build --examples` does it", path.display());
    path
}

#[test]
fn train_tiny_learns_and_writes() {
    let output = Command::new(example("train_tiny")).arg("--quick").output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    let after = |line: &str, word: &str| -> f64 {
        let rest = line.split_once(word).unwrap_or_else(|| panic!("no `{word}` in {line}")).1;
        rest.split([',', ' ']).next().unwrap().parse().unwrap()
    };
    let steps: Vec<_> = stdout.lines().filter(|l| l.starts_with("step ")).collect();
    let (first, last) = (steps[0], steps[steps.len() - 1]);
    assert!(steps.len() >= 2 && after(last, "loss ") < after(first, "loss ") - 0.3, "{stdout}");
    assert_eq!(after(first, "density "), 1.0);
    assert_eq!(after(last, "density "), 0.031);
    let counts = stdout.lines().find(|l| l.ends_with("weights are not zero")).unwrap();
    let (left, all) = (after(counts, ""), after(counts, "of "));
    // Hidden matrices at 1/32, embeddings at 1/8.
    let hidden = 64.0 * (3.0 * 64.0 + 64.0 + 2.0 * 256.0);
    let embedding = 2.0 * 384.0 * 64.0;
    assert_eq!((left, all), (hidden / 32.0 + embedding / 8.0, hidden + embedding), "{counts}");
    assert!(stdout.contains("it writes:\ndef "), "{stdout}");
}

#[test]
fn plot_run_draws_every_logged_step() {
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("run.svg");
    let lines =
        [r#"{"step":10,"loss":6.0,"density":1.0}"#, r#"{"step":20,"loss":3.0,"density":0.1,"validation_loss":3.5}"#];
    std::fs::write(folder.path().join("metrics.jsonl"), lines.join("\n")).unwrap();
    let output = Command::new(example("plot_run")).arg(folder.path()).arg(&svg).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(svg).unwrap();
    // 640 wide with margins of 44: step 10 of 20 is in the middle, a loss of 3 out of 6 at half
    // height.
    assert!(text.contains("320.0,44.0 596.0,150.0"), "the loss: {text}");
    assert!(text.contains("320.0,44.0 596.0,114.7"), "the density: {text}");
    assert_eq!(text.matches("<polyline").count(), 3);
    let missing = Command::new(example("plot_run")).args(["/nowhere/at/all", "x.svg"]).output().unwrap();
    assert!(!missing.status.success() && String::from_utf8_lossy(&missing.stderr).contains("nowhere"));
}

#[test]
fn published_size_writes_opens_and_runs() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(example("published_size")).arg("--quick").arg(folder.path()).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    // 8 layers of width 64: embeddings, positions, bigram table, and 12·64² a layer with biases,
    // norms and sinks.
    let layer = 12 * 64 * 64 + (3 * 64 + 64 + 256 + 64) + 2 * 64 + 4;
    let all = 2 * 2048 * 64 + 256 * 64 + 2048 * 2048 + 2048 + 64 + 8 * layer;
    assert!(stdout.contains(&format!("{all} parameters loaded in")), "{stdout}");
    assert!(stdout.contains("tokens/s over 20 tokens"), "{stdout}");
}

#[test]
fn sparse_vs_dense_compares_circuits_of_equal_loss() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--quick", "--device", "cpu", "--targets", "0.7", "--out"];
    let output = Command::new(example("sparse_vs_dense")).args(arguments).arg(folder.path()).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    let csv = std::fs::read_to_string(folder.path().join("circuits.csv")).unwrap();
    let rows: Vec<Vec<&str>> = csv.lines().skip(1).map(|line| line.split(',').collect()).collect();
    assert!(rows.len() > 20, "{csv}");
    for row in &rows {
        assert_eq!((row.len(), row[2]), (10, "0.7"), "{row:?}");
        assert!(
            row[7].parse::<f64>().unwrap() <= 0.7 && ["sparse", "attribution", "dense"].contains(&row[1]),
            "{row:?}"
        );
    }
    assert!(std::fs::read(folder.path().join("circuits.png")).unwrap().starts_with(b"\x89PNG"));
    // Both models are taken up again, and the same circuits found.
    let again = Command::new(example("sparse_vs_dense")).args(arguments).arg(folder.path()).output().unwrap();
    let again = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(!again.contains("steps") && again.contains("target 0.7, with clean-up"), "{again}");
    assert_eq!(std::fs::read_to_string(folder.path().join("circuits.csv")).unwrap(), csv);
    // Both models guess, which takes no circuit.
    assert!(
        stdout.contains("target 0.7, with clean-up: no task that both do and that takes edges (dense)"),
        "{stdout}"
    );
}

#[test]
fn stream_text_goes_through_once() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(example("stream_text")).arg(folder.path()).arg("--quick").output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    assert!(stdout.contains("0.004 GB") && stdout.contains("the tokenizers crate"), "{stdout}");
}

#[test]
fn frontier_trains_every_model_once() {
    let folder = tempfile::tempdir().unwrap();
    let run = || {
        let sizes = ["--widths", "32", "16", "--densities", "0.5", "0.25", "--seeds", "1", "--target", "0.7"];
        let mut command = Command::new(example("frontier"));
        let output = command.args(["--quick", "--device", "cpu"]).args(sizes).arg("--out").arg(folder.path()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let stdout = run();
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let csv = read("frontier.csv");
    let rows: Vec<Vec<&str>> = csv.lines().skip(1).map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 4, "{csv}");
    for row in &rows {
        let loss: f64 = row[3].parse().unwrap();
        // Twenty steps are better than chance, log 512 = 6.24.
        assert!(row.len() == 7 && (2.0..6.2).contains(&loss), "{row:?}");
    }
    let circuits = read("circuits.csv");
    assert!(circuits.lines().count() > 4, "{circuits}");
    for line in circuits.lines().skip(1) {
        let loss: f64 = line.split(',').nth(6).unwrap().parse().unwrap();
        assert!(loss <= 0.7, "{line}");
    }
    assert!(std::fs::read(folder.path().join("frontier.png")).unwrap().starts_with(b"\x89PNG"));
    assert!(stdout.contains("width 16, density 0.25, seed 0: "), "{stdout}");
    // What is done is not done again: one model is missing, and only that one is made.
    let lost = folder.path().join("width_16_density_0.25_seed_0");
    let kept = folder.path().join("width_32_density_0.5_seed_0/outcome.json");
    let before = std::fs::metadata(&kept).unwrap().modified().unwrap();
    std::fs::remove_dir_all(&lost).unwrap();
    run();
    assert!(lost.join("outcome.json").exists() && read("frontier.csv") == csv);
    assert_eq!(std::fs::metadata(&kept).unwrap().modified().unwrap(), before);
}

//! `mpirun -n N train` is `train` with more processes. Needs Open MPI, and the feature `mpi`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::tempdir;

/// Fifty steps, dense at first and at the final density from the 35th on. The learning rate is low:
/// at a high one a rounding error can choose another weight, and that grows.
const SETTINGS: [&str; 20] = [
    "train.steps=50",
    "lr=0.005",
    "n_layer=2",
    "d_model=32",
    "n_head=4",
    "d_head=8",
    "block_size=16",
    "vocab_size=300",
    "d_mlp=64",
    "data.generated_documents=60",
    "data.val_fraction=0.1",
    "batch_size=8",
    "anneal_start_frac=0.1",
    "anneal_stop_frac=0.7",
    "checkpoint_every=25",
    "eval_every=0",
    "eval_sequences=16",
    "log_every=1",
    "samples=0",
    "tasks=false",
];

/// `train` by itself, or as so many ranks.
fn train(ranks: Option<usize>) -> Command {
    let program = env!("CARGO_BIN_EXE_train");
    match ranks {
        None => started(program),
        Some(count) => {
            let mut command = started("mpirun");
            command.args(["-n", &count.to_string(), program]);
            command
        }
    }
}

fn started(program: &str) -> Command {
    let mut command = Command::new(program);
    // Tests may run as root in a container, on fewer processors than ranks.
    for name in ["OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "OMPI_MCA_rmaps_base_oversubscribe"] {
        command.env(name, "1");
    }
    command.env("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe").env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn fresh(ranks: Option<usize>, out: &Path, settings: &[&str]) -> Command {
    let mut command = train(ranks);
    command.arg("--out").arg(out);
    for setting in SETTINGS.iter().chain(settings) {
        command.args(["--set", setting]);
    }
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let output = command.output().expect("the program, or mpirun, starts");
    let said = said(&output);
    assert!(output.status.success(), "{command:?}\n{said}");
    said
}

#[track_caller]
fn fails(command: &mut Command, culprits: &[&str]) {
    let output = command.output().expect("mpirun starts");
    let said = said(&output);
    assert!(!output.status.success() && !said.contains("panicked"), "{command:?}\n{said}");
    for culprit in culprits {
        assert!(said.contains(culprit), "no {culprit:?}\n{said}");
    }
}

/// The numbers of every logged step but for its speed.
fn metrics(run: &Path) -> Vec<BTreeMap<String, f64>> {
    let log = fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    let parse = |line: &str| {
        let mut line: BTreeMap<String, f64> = serde_json::from_str(line).expect("numbers");
        line.remove("tokens_per_second").expect("a speed");
        line
    };
    log.lines().map(parse).collect()
}

fn losses(run: &Path) -> Vec<f64> {
    metrics(run).iter().map(|line| line["loss"]).collect()
}

/// The bytes of the last checkpoint.
fn weights(run: &Path) -> Vec<Vec<u8>> {
    let read = |name| fs::read(run.join("checkpoints/step-50").join(name)).expect("a checkpoint");
    ["model.safetensors", "optimizer.safetensors"].map(read).into()
}

#[track_caller]
fn assert_follow(run: &Path, want: &Path) {
    let (got, want) = (losses(run), losses(want));
    assert_eq!((got.len(), want.len()), (50, 50));
    for (step, (got, want)) in got.iter().zip(&want).enumerate() {
        assert!((got - want).abs() < 2e-6, "step {step}: {got} for {want}");
    }
    assert!(want[49] < want[0] - 0.5, "nothing was learned: {want:?}");
}

#[track_caller]
fn assert_same_bytes(a: &Path, b: &Path) {
    assert!(weights(a) == weights(b), "{} and {}", a.display(), b.display());
    assert_eq!(metrics(a), metrics(b));
}

#[test]
fn one_two_and_four_ranks_follow_one_process_and_repeat() {
    let dir = tempdir().unwrap();
    let cpu = ["run.device=cpu"];
    let one = dir.path().join("one");
    succeeds(&mut fresh(None, &one, &cpu));
    let log = metrics(&one);
    assert!(log[0]["density"] == 1.0 && log[49]["density"] == 1.0 / 16.0);
    for ranks in [1, 2, 4] {
        let [first, again] = ["first", "again"].map(|name| dir.path().join(format!("{name}-{ranks}")));
        succeeds(&mut fresh(Some(ranks), &first, &cpu));
        succeeds(&mut fresh(Some(ranks), &again, &cpu));
        assert_follow(&first, &one);
        assert_same_bytes(&first, &again);
    }
}

#[test]
fn two_ranks_on_vulkan_follow_one_process_and_repeat() {
    let dir = tempdir().unwrap();
    // Software GPUs are slow.
    let gpu = ["run.device=gpu", "n_layer=1"];
    let [one, two, again] = ["one", "two", "again"].map(|name| dir.path().join(name));
    succeeds(&mut fresh(None, &one, &gpu));
    let log = succeeds(&mut fresh(Some(2), &two, &gpu));
    assert!(log.contains("device      GPU"), "{log}");
    succeeds(&mut fresh(Some(2), &again, &gpu));
    assert_follow(&two, &one);
    assert_same_bytes(&two, &again);
}

#[test]
fn a_pass_for_each_rank_gives_the_bytes_of_one_process() {
    let dir = tempdir().unwrap();
    // At a rate at which any other rounding would soon be seen.
    let passes = ["run.device=cpu", "batch_size=2", "accumulate=4", "lr=0.04"];
    let [one, four] = ["one", "four"].map(|name| dir.path().join(name));
    succeeds(&mut fresh(None, &one, &passes));
    succeeds(&mut fresh(Some(4), &four, &passes));
    assert!(weights(&one) == weights(&four));

    // The same with bridges, to the model just trained.
    let bridges = |ranks, out: &Path| {
        let mut command = train(ranks);
        command.args(["bridges", "--device", "cpu", "--dense"]).arg(&one).arg("--out").arg(out);
        for setting in
            ["d_model=24", "n_head=3", "d_head=8", "d_mlp=48", "batch_size=2", "accumulate=2", "train.steps=6"]
        {
            command.args(["--set", setting]);
        }
        for setting in
            ["data.generated_documents=60", "data.val_fraction=0.1", "samples=0", "tasks=false", "log_every=1"]
        {
            command.args(["--set", setting]);
        }
        succeeds(&mut command);
        let read = |name| fs::read(out.join("checkpoints/step-6").join(name)).expect("a checkpoint");
        (["model.safetensors", "bridges.safetensors", "bridges_optimizer.safetensors"].map(read), metrics(out))
    };
    let (alone, log) = bridges(None, &dir.path().join("bridges-one"));
    let (both, log_of_both) = bridges(Some(2), &dir.path().join("bridges-two"));
    assert!(alone == both);
    for (a, b) in log.iter().zip(&log_of_both) {
        for (name, a) in a {
            assert!((a - b[name]).abs() <= 1e-6 * a.abs(), "{name}: {a} and {}", b[name]);
        }
    }
}

#[test]
fn ranks_that_cannot_train_together_say_why() {
    let dir = tempdir().unwrap();
    let cpu = "run.device=cpu";
    fails(&mut fresh(Some(3), &dir.path().join("thirds"), &[cpu]), &["train.batch_size", "multiple of 3"]);
    // One program, other settings.
    let mut command = fresh(Some(1), &dir.path().join("seeds"), &[cpu]);
    command.args([":", "-n", "1", env!("CARGO_BIN_EXE_train"), "--out"]).arg(dir.path().join("seeds"));
    for setting in SETTINGS.iter().chain(&[cpu, "run.seed=1"]) {
        command.args(["--set", setting]);
    }
    fails(&mut command, &["rank 1 of 2 has other settings than the others"]);
    let mut command = train(Some(2));
    command.args(["tokenizer", "--data"]).arg(dir.path());
    fails(&mut command, &["--shard"]);
}

#[test]
fn ranks_with_other_data_than_the_rest_are_told() {
    let dir = tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_train");
    let mut mpirun = started("mpirun");
    // The same path, and on each rank another file.
    for rank in 0..2 {
        let own = dir.path().join(format!("host-{rank}"));
        fs::create_dir(&own).unwrap();
        let line = format!("for i in range({rank}):\n    print(i + {rank})\n");
        (0..40).for_each(|i| fs::write(own.join(format!("{i}.py")), format!("n = {i}\n{}", line.repeat(20))).unwrap());
        mpirun.args([":"].iter().take(rank)).args(["-n", "1", "-wdir"]).arg(&own).arg(program);
        for setting in SETTINGS.iter().chain(&["run.device=cpu", "data.paths=[\"/proc/self/cwd\"]"]) {
            mpirun.args(["--set", setting]);
        }
        mpirun.arg("--out").arg(dir.path().join("run"));
    }
    fails(&mut mpirun, &["rank 1 of 2 has other data"]);
}

#[test]
fn the_example_script_trains_and_goes_on() {
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    let programs = Path::new(env!("CARGO_BIN_EXE_train")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let script = || {
        let mut command = started(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/mpi_train.sh"));
        // The script itself sees to more ranks than processors.
        for name in ["OMPI_MCA_rmaps_base_oversubscribe", "PRTE_MCA_rmaps_default_mapping_policy", "SLURM_JOB_ID"] {
            command.env_remove(name);
        }
        command.env("PATH", &path).arg("4").arg(&run);
        for setting in SETTINGS.iter().chain(&["run.device=cpu"]) {
            command.args(["--set", setting]);
        }
        succeeds(&mut command)
    };
    let said = script();
    assert!(said.contains("ranks       4;") && losses(&run).len() == 50, "{said}");
    let said = script();
    assert!(said.contains("resumed     at step 50"), "{said}");
}

#[test]
fn a_killed_rank_ends_the_job_and_fewer_go_on() {
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    // Endless, but with all that its schedules do within the first steps.
    let endless = ["run.device=cpu", "train.steps=100000", "checkpoint_every=5", "warmup_frac=0.00001"];
    let mut command = fresh(Some(4), &run, &endless);
    command.args(["--set", "anneal_start_frac=0.0001", "--set", "anneal_stop_frac=0.0002"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    let logged = || fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |log| log.lines().count());
    while logged() < 23 {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not train");
        std::thread::sleep(Duration::from_millis(10));
    }
    let ranks = Command::new("pgrep").args(["-P", &child.id().to_string()]).output().unwrap();
    let pids: Vec<String> = String::from_utf8(ranks.stdout).unwrap().lines().map(str::to_string).collect();
    assert_eq!(pids.len(), 4, "{pids:?}");
    let killed = Instant::now();
    assert!(Command::new("kill").args(["-9", &pids[2]]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let (said, took) = (said(&output), killed.elapsed());
    assert!(!output.status.success());
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert!(said.contains("rank 2") && said.contains("Killed"), "{said}");

    let before = losses(&run);
    let mut steps: Vec<u64> = fs::read_dir(run.join("checkpoints"))
        .unwrap()
        .filter_map(|e| e.unwrap().file_name().to_str()?.strip_prefix("step-")?.parse().ok())
        .collect();
    steps.sort_unstable();
    let saved = *steps.last().unwrap() as usize;
    // Thirty more steps, with half the ranks.
    let text = fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(text.contains("steps = 100000"));
    let mut child =
        train(Some(2)).arg("--resume").arg(&run).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while logged() < saved + 30 {
        assert!(child.try_wait().unwrap().is_none(), "it does not go on");
        assert!(start.elapsed() < Duration::from_secs(60), "it does not go on");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    child.wait().unwrap();
    let after = losses(&run);
    for (step, (a, b)) in before.iter().zip(&after).enumerate() {
        assert!((a - b).abs() < 2e-5, "step {step}: {a} before, {b} after");
    }
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (last, next) = (mean(&after[saved - 10..saved]), mean(&after[saved + 20..saved + 30]));
    assert!(next.is_finite() && next < last, "{last} before, {next} after");
}

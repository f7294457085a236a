//! One command with many settings, split among processes, one of which dies.

use std::fs;
use std::path::{Path, PathBuf};

use gossamer::sweep::{Shard, Sweep};
use tempfile::tempdir;

use super::{TINY, fails, gossamer, succeeds, text, train};

/// A sweep of twelve tiny runs that writes to `folder`.
fn twelve(folder: &Path, steps: u32) -> PathBuf {
    let mut command = vec!["train".to_string(), "--out".into(), "{out}".into()];
    let own = [&format!("train.steps={steps}"), "lr={lr}", "run.seed={seed}"];
    for setting in TINY.iter().chain(&own) {
        command.extend(["--set".to_string(), setting.to_string()]);
    }
    let file = folder.with_extension("toml");
    let values = "[product]\nlr = [0.005, 0.02, 0.08]\nseed = [0, 1, 2]\n[[list]]\nlr = 0.01\nseed = 0\n\
                  [[list]]\nlr = 0.01\nseed = 1\n[[list]]\nlr = 0.04\nseed = 1\n";
    fs::write(&file, format!("command = {command:?}\nfolder = {:?}\n{values}", text(folder))).unwrap();
    file
}

fn sweep(file: &Path, shard: Option<&str>) -> std::process::Command {
    let mut command = gossamer(&["sweep", text(file)]);
    command.args(shard.iter().flat_map(|shard| ["--shard", shard]));
    command
}

fn collect(file: &Path) -> String {
    succeeds(&mut gossamer(&["sweep", "collect", text(file)]))
}

#[cfg(unix)]
#[test]
fn three_shards_one_of_them_killed_and_rerun_collect_to_the_table_of_one_process() {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    let dir = tempdir().unwrap();
    let [whole, split] = ["whole", "split"].map(|name| dir.path().join(name));
    let steps = 25;
    let (all, parts) = (twelve(&whole, steps), twelve(&split, steps));
    succeeds(&mut sweep(&all, None));
    let said = collect(&all);
    let table = fs::read_to_string(whole.join("table.csv")).unwrap();
    assert_eq!(table.lines().count(), 13, "{table}");
    assert!(table.starts_with("lr,seed,") && table.contains("validation_loss"), "{table}");
    assert!(whole.join("validation_loss.png").exists(), "{said}");
    // Rows are the runs' own numbers.
    let log = fs::read_to_string(whole.join("lr=0.02,seed=1/metrics.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    let header: Vec<_> = table.lines().next().unwrap().split(',').collect();
    let row: Vec<_> = table.lines().find(|line| line.starts_with("0.02,1,")).unwrap().split(',').collect();
    let column = header.iter().position(|name| *name == "validation_loss").unwrap();
    assert_eq!(row[column].parse::<f64>().unwrap(), last["validation_loss"].as_f64().unwrap());

    succeeds(&mut sweep(&parts, Some("0/3")));
    let said = collect(&parts);
    assert!(said.contains("8 of 12 jobs are not done yet"), "{said}");
    // Killed with all it started, as a scheduler would, in the middle of its second job.
    let mut killed = sweep(&parts, Some("1/3"));
    let mut child = killed.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let second = split.join("lr=0.02,seed=1/metrics.jsonl");
    let start = Instant::now();
    while fs::read_to_string(&second).map_or(0, |log| log.lines().count()) < 7 {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not train");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(Command::new("kill").args(["-9", "--", &format!("-{}", child.id())]).status().unwrap().success());
    child.wait().unwrap();
    succeeds(&mut sweep(&parts, Some("2/3")));
    let said = succeeds(&mut sweep(&parts, Some("1/3")));
    assert!(said.contains("1/4  was done  lr=0.005,seed=1"), "{said}");
    assert!(said.contains("2/4  done      lr=0.02,seed=1"), "{said}");
    collect(&parts);
    assert_eq!(fs::read_to_string(split.join("table.csv")).unwrap(), table);
    // Nothing remains to do.
    let said = succeeds(&mut sweep(&parts, None));
    assert_eq!(said.matches("was done").count(), 12, "{said}");
}

/// A sweep of one tiny run; `before` stands in front of `train`.
fn one(file: &Path, before: &[&str], settings: &[&str]) {
    let mut command: Vec<String> = before.iter().map(|word| word.to_string()).collect();
    command.extend(["train".into(), "--out".into(), "{out}".into(), "--seed".into(), "{seed}".into()]);
    for setting in TINY.iter().chain(settings) {
        command.extend(["--set".to_string(), setting.to_string()]);
    }
    let folder = file.with_extension("");
    fs::write(file, format!("command = {command:?}\nfolder = {:?}\n[product]\nseed = [0]\n", text(&folder))).unwrap();
}

#[cfg(unix)]
#[test]
fn a_training_that_is_stopped_or_killed_is_not_done_and_goes_on_with_the_same_command_alone() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    let dir = tempdir().unwrap();
    let (file, run) = (dir.path().join("one.toml"), dir.path().join("one/seed=0"));
    // It runs its arguments, as launchers do.
    let launcher = dir.path().join("mpirun");
    fs::write(&launcher, "#!/bin/sh\nexec \"$@\"\n").unwrap();
    fs::set_permissions(&launcher, fs::Permissions::from_mode(0o755)).unwrap();
    let launcher = text(&launcher);
    let endless = ["train.steps=100000", "warmup_frac=0.00001"];
    one(&file, &[launcher], &endless);
    let logged = || fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |log| log.lines().count());
    let until = |steps: usize| {
        let child = sweep(&file, None).process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let start = Instant::now();
        while logged() < steps {
            assert!(start.elapsed() < Duration::from_secs(60), "it does not train");
            std::thread::sleep(Duration::from_millis(1));
        }
        child
    };
    let send = |signal: &str, process: &str| {
        assert!(Command::new("kill").args([signal, "--", process]).status().unwrap().success());
    };
    let stopped = |steps| {
        let child = until(steps);
        let training = Command::new("pgrep").args(["-P", &child.id().to_string()]).output().unwrap();
        send("-TERM", String::from_utf8(training.stdout).unwrap().trim());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("asked to stop"), "{said}");
        logged()
    };
    let at = stopped(7);
    fails(&mut gossamer(&["sweep", "collect", text(&file)]), &["1 of 1 jobs are not done yet"]);
    assert!(stopped(at + 7) > at);
    let log = fs::read_to_string(dir.path().join("one/jobs/seed=0.stderr")).unwrap();
    assert!(log.contains(&format!("resumed     at step {at}")), "{log}");

    let mut child = until(logged() + 7);
    send("-KILL", &format!("-{}", child.id()));
    child.wait().unwrap();
    one(&file, &[launcher], &["train.steps=40"]);
    fails(&mut sweep(&file, None), &["seed=0.json", "started with another command", "remove this file and the folder"]);
    // What the folder holds was not begun by the new command either.
    fs::remove_file(dir.path().join("one/jobs/seed=0.json")).unwrap();
    fails(&mut sweep(&file, None), &["config.toml", "did not start"]);
    fs::remove_dir_all(&run).unwrap();
    succeeds(&mut sweep(&file, None));
    assert_eq!(logged(), 40);
}

#[test]
fn a_job_within_a_launchers_job_is_by_itself() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("one.toml");
    // A command that fails before it leaves anything may be corrected.
    one(&file, &[], &["train.stepps=3"]);
    fails(&mut sweep(&file, None), &["1 of 1 jobs failed"]);
    one(&file, &[], &["train.steps=3"]);
    succeeds(sweep(&file, None).env("OMPI_COMM_WORLD_SIZE", "3").env("SLURM_STEP_NUM_TASKS", "3"));
    // A job may write any JSON.
    let folder = dir.path().join("json");
    let shell = "command = ['sh', '-c', 'mkdir -p {out}; echo 1 >{out}/a.json; echo {{\"n\": {n}}}']";
    fs::write(&file, format!("{shell}\nfolder = {:?}\n[product]\nn = [5]\n", text(&folder))).unwrap();
    succeeds(&mut sweep(&file, None));
    collect(&file);
}

#[cfg(unix)]
#[test]
fn two_processes_do_not_run_one_job_twice() {
    let dir = tempdir().unwrap();
    let (file, folder) = (dir.path().join("one.toml"), dir.path().join("one"));
    let shell = "command = ['sh', '-c', 'echo {n} >>{out}.count; sleep 0.5']";
    fs::write(&file, format!("{shell}\nfolder = {:?}\n[product]\nn = [5]\n", text(&folder))).unwrap();
    let children = [(); 2].map(|()| sweep(&file, None).stdout(std::process::Stdio::piped()).spawn().unwrap());
    let printed = children.map(|child| String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap());
    assert_eq!(fs::read_to_string(folder.join("n=5.count")).unwrap(), "5\n", "{printed:?}");
    let mut printed = printed.each_ref().map(|line| line.contains("was done"));
    printed.sort_unstable();
    assert_eq!(printed, [false, true]);
}

#[test]
fn a_job_that_fails_is_told_and_the_others_are_done() {
    let dir = tempdir().unwrap();
    let folder = dir.path().join("devices");
    let file = dir.path().join("devices.toml");
    let values = "[product]\ndevice = ['cpu', 'abacus']\n";
    let command = "command = ['gossamer', 'check', '--device', '{device}']";
    fs::write(&file, format!("{command}\nfolder = {:?}\n{values}", text(&folder))).unwrap();
    let said = fails(&mut sweep(&file, None), &["1 of 2 jobs failed", "device=abacus.stderr"]);
    assert!(said.contains("done      device=cpu") && said.contains("failed    device=abacus"), "{said}");
    let log = fs::read_to_string(folder.join("jobs/device=abacus.stderr")).unwrap();
    assert!(log.contains("`abacus` is not one of"), "{log}");
    // With another command, what was done is no longer what is asked for.
    fs::write(&file, format!("{}\nfolder = {:?}\n{values}", command.replace("check", "devices"), text(&folder)))
        .unwrap();
    fails(&mut sweep(&file, None), &["device=cpu.json", "another command"]);
    fails(&mut sweep(&file, Some("2/2")), &["2/2", "INDEX/COUNT"]);
    fails(&mut sweep(&dir.path().join("no.toml"), None), &["no.toml"]);
}

#[test]
fn circuits_found_in_shards_are_those_found_together() {
    let dir = tempdir().unwrap();
    let model = dir.path().join("model");
    succeeds(train(&["--out", text(&model)]).args(TINY.iter().flat_map(|setting| ["--set", setting])));
    let tasks = ["for_while", "if_equals", "with_as"];
    let search = |out: &Path, shard: Option<&str>, target: &str| {
        let mut command =
            train(&["circuit", text(&model), "--out", text(out), "--device", "cpu", "--target-loss", target]);
        command.args(["--mean-tokens", "512", "--set", "steps=3", "--set", "pairs=4", "--set", "eval_pairs=8"]);
        command.args(tasks.iter().flat_map(|task| ["--task", task]));
        command.args(shard.iter().flat_map(|shard| ["--shard", shard]));
        // As one of several tasks of a step.
        command.envs(shard.map(|_| ("OMPI_COMM_WORLD_SIZE", "3")));
        command
    };
    let find = |out: &Path, shard| succeeds(&mut search(out, shard, "0.7"));
    let [together, split] = ["together", "split"].map(|name| dir.path().join(name));
    find(&together, None);
    for shard in ["0/2", "1/2"] {
        find(&split, Some(shard));
    }
    let said = find(&split, Some("0/2"));
    assert_eq!(said.matches("was done before").count(), 2, "{said}");
    for folder in [&together, &split] {
        succeeds(&mut gossamer(&["sweep", "collect", text(folder)]));
    }
    let table = |folder: &Path| fs::read_to_string(folder.join("table.csv")).unwrap();
    assert_eq!(table(&split), table(&together));
    // One of the tasks is not for so small a tokenizer.
    assert!(table(&split).lines().count() >= tasks.len(), "{}", table(&split));
    // An answer that is gone is looked for again.
    let circuit = split.join("for_while.json");
    let had = fs::read(&circuit).unwrap();
    fs::remove_file(&circuit).unwrap();
    let said = find(&split, Some("0/2"));
    assert_eq!(said.matches("was done before").count(), 1, "{said}");
    assert!(fs::read(&circuit).unwrap() == had);
    // One that cannot be written is an error, and no answer.
    fs::remove_file(&circuit).unwrap();
    fs::create_dir(&circuit).unwrap();
    fails(&mut search(&split, Some("0/2"), "0.7"), &["for_while.json", "1 of 1 tasks could not be done"]);
    fs::remove_dir(&circuit).unwrap();
    find(&split, Some("0/2"));
    // To a question without an answer there is no circuit left of another question.
    succeeds(&mut search(&split, Some("0/2"), "1e-9"));
    assert!(!circuit.exists());
}

fn load(text: &str) -> Result<Sweep, String> {
    let dir = tempdir().unwrap();
    let path = dir.path().join("sweep.toml");
    fs::write(&path, text).unwrap();
    Sweep::load(&path).map_err(|error| error.to_string())
}

#[test]
fn products_and_lists_fill_the_command() {
    let sweep = load(
        "command = ['train', '--set', 'lr={lr}', '--seed={seed}', '--out', '{out}']\nfolder = 'runs/a'\n\
         [product]\nseed = [3, 4]\nlr = [0.1, 1e-3]\n[[list]]\nlr = 1\nseed = 'x/y'",
    )
    .unwrap();
    let commands: Vec<_> = sweep.jobs.iter().map(|job| job.command[2..4].join(" ")).collect();
    let want = ["lr=0.1 --seed=3", "lr=0.1 --seed=4", "lr=0.001 --seed=3", "lr=0.001 --seed=4", "lr=1 --seed=x/y"];
    assert_eq!(commands, want);
    assert_eq!(sweep.jobs[1].out, Path::new("runs/a/lr=0.1,seed=4"));
    assert_eq!(sweep.jobs[1].file("log"), Path::new("runs/a/jobs/lr=0.1,seed=4.log"));
    assert_eq!(sweep.jobs[1].command[5], "runs/a/lr=0.1,seed=4");
    let cleaned = &sweep.jobs[4].name;
    assert!(cleaned.starts_with("lr=1,seed=x_y-") && cleaned.len() == "lr=1,seed=x_y-".len() + 8, "{cleaned}");
}

#[test]
fn doubled_braces_are_braces() {
    let text = "command = ['echo', '{{\"lr\": {lr}}}', '{{{lr}}}']\nfolder = 'a'\n[product]\nlr = [1]";
    assert_eq!(load(text).unwrap().jobs[0].command[1..], ["{\"lr\": 1}", "{1}"]);
}

#[test]
fn inconsistent_sweeps_are_errors() {
    for (text, culprit) in [
        ("command = ['train']\nfolder = 'a'", "no job"),
        ("command = ['echo']\nfolder = 'a'\n[product]\nlr = [1]", "does not use lr"),
        ("command = ['train', '{lr}{x}']\nfolder = 'a'\n[product]\nlr = [1]", "called x"),
        ("command = ['echo', '{lr}']\nfolder = 'a'\n[product]\nlr = [1, 1]", "two jobs"),
        ("command = ['echo', '{lr}']\nfolder = 'a'\n[product]\nlr = [[1]]", "expected a text"),
        ("command = ['echo', '{lr}']\nfolder = 'a'\nproducts = 1", "products"),
        ("command = ['echo', '{lr}']\nfolder = 'a'\n[product]\nlr = [1]\n[[list]]", "is empty"),
        ("command = ['echo', '{out}']\nfolder = 'a'\n[product]\nout = [1]", "called out"),
        ("command = ['echo', '{lr}}']\nfolder = 'a'\n[product]\nlr = [1]", "unmatched"),
        ("command = ['echo', '{lr']\nfolder = 'a'\n[product]\nlr = [1]", "unmatched"),
        ("command = ['mpirun', 'train', '{lr}']\nfolder = 'a'\n[product]\nlr = [1]", "{out}"),
    ] {
        let message = load(text).unwrap_err();
        assert!(message.contains(culprit), "{message}");
    }
}

#[test]
fn parts_are_disjoint_and_whole() {
    for count in 1..6 {
        let shards: Vec<Shard> = (0..count).map(|i| format!("{i}/{count}").parse().unwrap()).collect();
        for position in 0..20 {
            assert_eq!(shards.iter().filter(|shard| shard.has(position)).count(), 1);
        }
    }
    assert!((0..9).all(|position| Shard::WHOLE.has(position)));
    for bad in ["3/3", "0/0", "1", "a/2", "-1/2", ""] {
        assert!(bad.parse::<Shard>().is_err(), "{bad}");
    }
}

//! Stopped in every way, a resumed run ends with the same bytes.

use std::fs;

use tempfile::tempdir;

use super::{assert_same_results, results, succeeds, text, tiny};

#[test]
fn a_seed_determines_every_byte() {
    let dir = tempdir().unwrap();
    let run = |name: &str, seed: &str| {
        let out = dir.path().join(name);
        succeeds(tiny(&out, &["checkpoint_every=0"]).args(["--seed", seed]));
        out
    };
    let (a, b, c) = (run("a", "3"), run("b", "3"), run("c", "4"));
    assert_same_results(&b, &a, 40);
    assert!(results(&c, 40)[0].1 != results(&a, 40)[0].1, "another seed, the same model");
}

#[test]
fn resuming_a_finished_run_changes_nothing() {
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    succeeds(&mut tiny(&run, &[]));
    let before = results(&run, 40);
    let said = succeeds(&mut super::resume(&run));
    assert!(said.contains("resumed     at step 40"), "{said}");
    assert!(results(&run, 40) == before);
    let mut steps: Vec<_> = fs::read_dir(run.join("checkpoints")).unwrap().map(|e| e.unwrap().file_name()).collect();
    steps.sort();
    assert_eq!(steps, ["step-30", "step-35", "step-40"], "{}", text(&run));
}

#[test]
fn a_run_killed_before_it_had_settings_is_begun_anew() {
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    fs::create_dir(&run).unwrap();
    let left = run.join(".tmp-config.toml-18820");
    fs::write(&left, "half a fi").unwrap();
    succeeds(&mut tiny(&run, &["train.steps=2"]));
    assert!(!left.exists());
}

#[cfg(unix)]
mod signals {
    use std::path::Path;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use tempfile::tempdir;

    use super::super::{assert_same_results, finish, resume, succeeds, tiny};
    use super::fs;

    fn interrupt(child: &Child) {
        let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Starts the command and returns once `ready` returns true.
    fn started(command: &mut Command, mut ready: impl FnMut() -> bool) -> Child {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let start = Instant::now();
        while !ready() {
            assert!(child.try_wait().unwrap().is_none(), "ended before it was ready");
            assert!(start.elapsed() < Duration::from_secs(60), "never ready");
            std::thread::sleep(Duration::from_millis(2));
        }
        child
    }

    fn logged(run: &Path) -> usize {
        fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |log| log.lines().count())
    }

    #[test]
    fn killed_at_twenty_random_instants() {
        let dir = tempdir().unwrap();
        let whole = dir.path().join("whole");
        // The first run makes the corpus cache, so that the second one's time is typical.
        succeeds(&mut tiny(&dir.path().join("first"), &[]));
        let start = Instant::now();
        succeeds(&mut tiny(&whole, &[]));
        let mut typical = start.elapsed();

        let mut rng = ChaCha8Rng::seed_from_u64(20);
        let (mut kills, mut resumed, mut anew) = (0, 0, 0);
        // How long a run takes depends on what else the machine does: on until there were enough
        // kills.
        for index in 0..60 {
            if kills >= 20 && resumed >= 10 {
                break;
            }
            // Some with a cache of their own, to be caught while that is written.
            let run = match index {
                0..4 => dir.path().join(format!("apart-{index}/run")),
                _ => dir.path().join(format!("run-{index}")),
            };
            for attempt in 0.. {
                let (mut command, going_on) = match run.join("config.toml").exists() {
                    true => (resume(&run), true),
                    false => (tiny(&run, &[]), false),
                };
                if attempt > 0 {
                    *if going_on { &mut resumed } else { &mut anew } += 1;
                }
                let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
                // At most three kills a run; the first is spread evenly over the run's length.
                let even = (f64::from(index % 20) + rng.random::<f64>()) / 20.0;
                let share = if attempt == 0 { even } else { rng.random() };
                let start = Instant::now();
                if attempt < 3 {
                    std::thread::sleep(typical.mul_f64(share));
                    child.kill().unwrap();
                }
                let output = child.wait_with_output().unwrap();
                let (code, said) = finish(output);
                match code {
                    Some(0) if attempt == 0 => {
                        // It was done before its time.
                        typical = typical.min(start.elapsed()).mul_f64(0.9);
                        break;
                    }
                    Some(0) => break,
                    None => kills += 1,
                    Some(code) => panic!("exit {code} on attempt {attempt} of {}\n{said}", run.display()),
                }
            }
            assert_same_results(&run, &whole, 40);
            let temporaries = |name: &str| name.starts_with(".tmp-") || name.starts_with(".old-");
            for folder in [run.clone(), run.join("checkpoints")] {
                for entry in fs::read_dir(folder).unwrap() {
                    let name = entry.unwrap().file_name().into_string().unwrap();
                    assert!(!temporaries(&name), "{name} was left in {}", run.display());
                }
            }
        }
        println!("{kills} kills; {resumed} times resumed, {anew} times started anew");
        assert!(kills >= 20 && resumed >= 10, "{kills} kills, {resumed} resumed: the instants are badly chosen");
    }

    #[test]
    fn ctrl_c_saves_and_the_run_goes_on_to_the_same_bytes() {
        let dir = tempdir().unwrap();
        let (whole, run) = (dir.path().join("whole"), dir.path().join("run"));
        let steps = |out| tiny(out, &["checkpoint_every=0", "train.steps=1500"]);
        succeeds(&mut steps(&whole));
        let child = started(&mut steps(&run), || logged(&run) >= 7);
        interrupt(&child);
        let (code, said) = finish(child.wait_with_output().unwrap());
        assert_eq!(code, Some(130), "{said}");
        let stopped = logged(&run);
        assert!((7..1500).contains(&stopped), "stopped at {stopped}");
        assert!(said.contains(&format!("stopped at step {stopped}; continue with: train --resume ")), "{said}");
        assert!(run.join(format!("checkpoints/step-{stopped}/state.json")).exists());
        let said = succeeds(&mut resume(&run));
        assert!(said.contains(&format!("at step {stopped}")), "{said}");
        assert_same_results(&run, &whole, 1500);
    }
}

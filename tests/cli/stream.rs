//! Runs on data that is tokenized meanwhile.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::tempdir;

use super::{assert_same_results, finish, resume, succeeds, text, tiny};

/// Forty steps of 64 tokens, in shards of 1,024 (the least), from about 6,000 tokens.
fn stream(out: &Path, data: &Path) -> Command {
    let mut command = tiny(out, &["data.shard_tokens=1024", "train.steps=120"]);
    command.arg("--data").arg(data);
    command
}

/// A file of short stories in a column `story`.
fn stories(folder: &Path) -> PathBuf {
    let word = |n: usize| ["sun", "moon", "cat", "dog", "river", "stone", "bird"][n % 7];
    let rows =
        (0..400).map(|n| format!("{n},\"The {} saw {} {}, and the {}.\"", word(n), n * n, word(n / 7), word(n / 3)));
    let path = folder.join("stories.csv");
    fs::write(&path, "id,text\n".to_string() + &rows.collect::<Vec<_>>().join("\n")).unwrap();
    path
}

#[test]
fn a_killed_run_resumes_with_the_same_bits() {
    let dir = tempdir().unwrap();
    let data = stories(dir.path());
    let (whole, killed) = (dir.path().join("a/whole"), dir.path().join("b/killed"));
    let said = succeeds(&mut stream(&whole, &data));
    assert!(said.contains("tokens"), "{said}");
    for steps in [40, 80] {
        let mut command = if steps == 40 { stream(&killed, &data) } else { resume(&killed) };
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (metrics, start) = (killed.join("metrics.jsonl"), Instant::now());
        let logged = || fs::read_to_string(&metrics).map_or(0, |log| log.lines().count());
        while logged() < steps && child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < Duration::from_secs(60), "never so far");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What the stream has in the cache may be lost, too.
        if steps == 80 {
            fs::remove_dir_all(dir.path().join("b/cache")).unwrap();
        }
    }
    succeeds(&mut resume(&killed));
    assert_same_results(&killed, &whole, 120);
}

#[test]
fn changed_data_is_noticed() {
    let dir = tempdir().unwrap();
    let (data, run) = (stories(dir.path()), dir.path().join("run"));
    succeeds(&mut stream(&run, &data));
    let mut changed = fs::read_to_string(&data).unwrap();
    changed.push_str("\n400,\"One more.\"\n");
    fs::write(&data, changed).unwrap();
    super::fails(&mut resume(&run), &["no longer what this run was trained on"]);
}

#[test]
fn the_standard_input_is_kept_for_the_run() {
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    let text_of = |n: usize| format!("Story {n} has {} words.<|endoftext|>\n", n * 7);
    let input: String = (0..300).map(text_of).collect();
    let mut command = tiny(&run, &["train.steps=5"]);
    let command = command.args(["--data", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let (code, said) = finish(child.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("300 documents"), "{said}");
    let config = fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(config.contains("cache/stdin-"), "{config}");
    succeeds(&mut resume(&run));
    let _ = text(&run);
}

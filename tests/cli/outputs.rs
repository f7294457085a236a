//! What `--out` and its like may name: links, pipes, devices, standard output, folders.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};

use tempfile::{TempDir, tempdir};

use super::{fails, gossamer, succeeds, text, tiny, train};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/circuit-example.json");
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

fn export(out: &str) -> std::process::Command {
    gossamer(&["circuit", "export", EXAMPLE, "--format", "dot", "--out", out])
}

fn drawn() -> Vec<u8> {
    let output = gossamer(&["circuit", "export", EXAMPLE, "--format", "dot"]).output().expect("it runs");
    assert!(output.stdout.starts_with(b"digraph circuit {"));
    output.stdout
}

/// A tiny model.
fn model() -> (TempDir, std::path::PathBuf) {
    let dir = tempdir().expect("a folder");
    let run = dir.path().join("run");
    succeeds(&mut tiny(&run, &["train.steps=1"]));
    (dir, run)
}

#[track_caller]
fn output(command: &mut std::process::Command) -> Output {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn a_dash_is_standard_output_alone() {
    let (dir, run) = model();
    assert_eq!(output(&mut export("-")).stdout, drawn());
    for name in ["-", "/dev/stdout"] {
        let record =
            output(&mut gossamer(&["record", text(&run), "--prompt", "x = 1", "--out", name, "--device", "cpu"]));
        let header = u64::from_le_bytes(record.stdout[..8].try_into().expect("eight bytes")) as usize;
        let json: serde_json::Value = serde_json::from_slice(&record.stdout[8..8 + header]).expect("a header");
        let end = |t: &serde_json::Value| t["data_offsets"][1].as_u64().unwrap_or(0);
        let end = json.as_object().expect("tensors").values().map(end).max();
        assert_eq!(end, Some((record.stdout.len() - 8 - header) as u64), "something else is in it");
        assert!(String::from_utf8_lossy(&record.stderr).contains("sites in"));
    }
    let source = dir.path().join("a.txt");
    fs::write(&source, "some text\n".repeat(50)).expect("written");
    let eval = ["eval", text(&run), "--device", "cpu", "--losses", "-", "--data", text(&source)];
    let losses = output(&mut gossamer(&eval));
    assert_eq!(losses.stdout[8], b'{');
    assert!(String::from_utf8_lossy(&losses.stderr).contains("nats per token"));
    let pairs = output(&mut gossamer(&["tasks", "show", "single_double_quote", "--save", "-"])).stdout;
    String::from_utf8(pairs).expect("text").lines().for_each(|line| {
        serde_json::from_str::<serde_json::Value>(line).expect("a pair");
    });
    let trained = output(&mut train(&["tokenizer", "--data", text(&source), "--vocab-size", "260", "--out", "-"]));
    serde_json::from_slice::<serde_json::Value>(&trained.stdout).expect("a tokenizer alone");
    assert!(!Path::new("-").exists());
}

#[test]
fn pictures_go_to_standard_output_too() {
    let report = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/reports/nvidia-h100.json");
    let mut compare = gossamer(&["bench", "compare", report, report, "--png", "-"]);
    let picture = output(&mut compare);
    assert!(picture.stdout.starts_with(PNG));
    assert!(String::from_utf8_lossy(&picture.stderr).contains("[1]"));
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{FileTypeExt, symlink};
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use super::*;

    #[test]
    fn links_stay_and_what_they_lead_to_is_replaced() {
        let dir = tempdir().expect("a folder");
        fs::create_dir(dir.path().join("far")).expect("created");
        fs::write(dir.path().join("far/old.dot"), "stale").expect("written");
        for (link, to) in [("link", "far/old.dot"), ("dangling", "far/new.dot"), ("twice", "link")] {
            symlink(to, dir.path().join(link)).expect("a link");
            succeeds(&mut export(text(&dir.path().join(link))));
            assert_eq!(fs::read_link(dir.path().join(link)).expect("still a link"), Path::new(to));
            assert_eq!(fs::read(dir.path().join(link)).expect("a file"), drawn());
        }
        symlink("circle", dir.path().join("circle")).expect("a link");
        fails(&mut export(text(&dir.path().join("circle"))), &["circle", "too many links"]);
        let model = model();
        fs::create_dir(dir.path().join("far/empty")).expect("created");
        for (link, to) in [("model", "far/empty"), ("model-to-be", "far/model")] {
            symlink(to, dir.path().join(link)).expect("a link");
            succeeds(&mut gossamer(&["convert", text(&model.1), text(&dir.path().join(link))]));
            assert!(dir.path().join(to).join("model.safetensors").exists());
            assert!(dir.path().join(link).symlink_metadata().expect("there").is_symlink());
        }
    }

    #[test]
    fn pipes_and_devices_are_written_to() {
        let dir = tempdir().expect("a folder");
        let fifo = dir.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
        let mut writer = export(text(&fifo)).spawn().expect("it runs");
        assert_eq!(fs::read(&fifo).expect("the pipe"), drawn());
        assert!(writer.wait().expect("its end").success());
        assert!(fifo.symlink_metadata().expect("there").file_type().is_fifo());
        succeeds(&mut export("/dev/null"));
        assert!(Path::new("/dev/null").symlink_metadata().expect("there").file_type().is_char_device());
        fails(&mut export("/dev/full"), &["/dev/full", "No space left"]);
        let socket = dir.path().join("socket");
        let _listener = UnixListener::bind(&socket).expect("a socket");
        fails(&mut export(text(&socket)), &["socket", "name a file"]);
        fails(&mut export(text(dir.path())), &[text(dir.path()), "is a folder"]);
        fails(&mut export(&format!("{}/none/", text(dir.path()))), &["none", "no such folder"]);
    }

    #[test]
    fn the_names_of_standard_output_are_standard_output() {
        let dir = tempdir().expect("a folder");
        for name in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
            if !Path::new(name).exists() {
                continue;
            }
            assert_eq!(output(&mut export(name)).stdout, drawn(), "{name}");
            let file = dir.path().join("file");
            fs::write(&file, "before\n").expect("written");
            let append = fs::OpenOptions::new().append(true).open(&file).expect("opened");
            let mut command = export(name);
            assert!(command.stdout(Stdio::from(append)).status().expect("it runs").success());
            assert_eq!(fs::read(&file).expect("the file"), [b"before\n".as_slice(), &drawn()].concat(), "{name}");
        }
    }

    #[test]
    fn a_replaced_file_keeps_its_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempdir().expect("a folder");
        let file = dir.path().join("private");
        fs::write(&file, "old").expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set");
        succeeds(&mut export(text(&file)));
        assert_eq!(file.metadata().expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read(&file).expect("the file"), drawn());
    }
}

//! Pushes to a small Hub on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use gossamer::formats::hub::{HubId, Uploaded};
use gossamer::formats::{Hub, ModelFiles};
use gossamer::observer::Observer;
use gossamer::pipelines::{PushRequest, push};
use gossamer::{Error, Result};
use tempfile::{TempDir, tempdir};

use crate::fake_hub::{FakeHub, Fault, TOKEN};
use crate::{assert_says, write_model};

const NAME: &str = "me/model";

fn id(text: &str) -> HubId {
    HubId::parse(text).unwrap()
}

fn hub(endpoint: &str) -> Hub {
    let hub = Hub { endpoint: endpoint.into(), token: Some(TOKEN.into()), ..Hub::from_vars(|_| None) };
    Hub { offline: false, timeout: Duration::from_millis(500), ..hub }
}

fn upload(server: &FakeHub, folder: &Path) -> Result<Uploaded> {
    hub(&server.endpoint).upload(&id(NAME), folder, false, "a message", Observer::default())
}

/// A folder with files of both kinds, one of them in a folder.
fn folder() -> (TempDir, BTreeMap<String, Vec<u8>>) {
    let dir = tempdir().unwrap();
    let large: Vec<u8> = (0..100_001u32).map(|i| (i * i / 7) as u8).collect();
    let files = BTreeMap::from([
        ("README.md".to_string(), b"# a model\n".to_vec()),
        ("config.json".to_string(), b"{}".to_vec()),
        ("empty.bin".to_string(), Vec::new()),
        ("model.safetensors".to_string(), large),
        ("more/notes.txt".to_string(), "Übermut".as_bytes().to_vec()),
    ]);
    fs::create_dir(dir.path().join("more")).unwrap();
    files.iter().for_each(|(name, bytes)| fs::write(dir.path().join(name), bytes).unwrap());
    (dir, files)
}

/// What the server has of a branch, without the file that it makes itself.
fn stored(server: &FakeHub, branch: &str) -> BTreeMap<String, Vec<u8>> {
    let mut files = server.files(NAME, branch);
    files.remove(".gitattributes");
    server.with(|state| assert_eq!(state.complaints, Vec::<String>::new()));
    files
}

#[test]
fn a_folder_arrives_as_one_commit_and_is_not_sent_twice() {
    let (server, (dir, mut files)) = (FakeHub::start(), folder());
    let first = upload(&server, dir.path()).unwrap();
    assert_eq!(stored(&server, "main"), files);
    assert_eq!(server.commits(NAME), ["a message"]);
    assert_eq!(first.commit.as_deref(), Some("0000000000000000000000000000000000000001"));
    assert!(first.files.iter().all(|file| file.sent));
    assert_eq!(
        first.files.iter().map(|file| file.bytes).sum::<u64>(),
        files.values().map(Vec::len).sum::<usize>() as u64
    );

    let asked = server.with(|state| state.requests.len());
    let second = upload(&server, dir.path()).unwrap();
    assert_eq!((second.commit, server.commits(NAME).len()), (None, 1));
    assert!(second.files.iter().all(|file| !file.sent));
    let again = server.with(|state| state.requests[asked..].join("\n"));
    assert!(!again.contains("PUT") && !again.contains("/commit/") && !again.contains("objects"), "{again}");

    files.insert("README.md".into(), b"# another\n".to_vec());
    fs::write(dir.path().join("README.md"), &files["README.md"]).unwrap();
    let third = upload(&server, dir.path()).unwrap();
    let sent: Vec<_> = third.files.iter().filter(|file| file.sent).map(|file| file.name.as_str()).collect();
    assert_eq!((sent, stored(&server, "main")), (vec!["README.md"], files));
}

#[test]
fn large_files_go_in_the_parts_that_are_asked_for() {
    for part in [1, 33_333, 33_334, 50_000, 100_001, 1 << 20] {
        // A request for every byte would take too long.
        let (server, (dir, mut files)) = (FakeHub::start(), folder());
        if part == 1 {
            files.insert("model.safetensors".into(), b"abc".to_vec());
            fs::write(dir.path().join("model.safetensors"), "abc").unwrap();
        }
        server.with(|state| state.part_size = Some(part));
        upload(&server, dir.path()).unwrap();
        assert_eq!(stored(&server, "main"), files, "parts of {part}");
    }
}

#[test]
fn branches_are_created_and_private_ones_stay_so() {
    let (server, (dir, files)) = (FakeHub::start(), folder());
    let push = |name: &str, private| {
        hub(&server.endpoint).upload(&id(name), dir.path(), private, "a message", Observer::default())
    };
    push("me/model@trial/one", true).unwrap();
    push("me/model@trial/one", true).unwrap();
    assert_eq!((stored(&server, "trial/one"), stored(&server, "main").len()), (files, 0));
    assert!(server.with(|state| state.repositories[NAME].private));
    push("me/open", false).unwrap();
    assert_says(push("me/open", true), &["me/open exists and is public", "--private"]);
}

#[test]
fn without_the_right_to_write_the_error_says_how_to_get_it() {
    let (server, (dir, _)) = (FakeHub::start(), folder());
    let with = |hub: Hub| hub.upload(&id(NAME), dir.path(), false, "a message", Observer::default());
    let none = Hub { token: None, ..hub(&server.endpoint) };
    assert_says(with(none), &["set HF_TOKEN", "hf auth login"]);
    let offline = Hub { offline: true, ..hub(&server.endpoint) };
    assert_says(with(offline), &[NAME, "HF_HUB_OFFLINE"]);
    assert_eq!(server.with(|state| state.requests.len()), 0);
    let reader = Hub { token: Some("hf_reader".into()), ..hub(&server.endpoint) };
    let message = with(reader).unwrap_err().to_string();
    for part in [NAME, "status 401", "lacks write access", "/settings/tokens", "HF_TOKEN"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!message.contains("hf_reader"));
    assert!(server.with(|state| state.repositories.is_empty()));

    // A token for what exists may not create, but write.
    let (server, (dir, files)) = (FakeHub::start(), folder());
    upload(&server, dir.path()).unwrap();
    server.with(|state| state.faults.push(("repos/create", Fault::Status(403, 9))));
    fs::write(dir.path().join("config.json"), "{ }").unwrap();
    upload(&server, dir.path()).unwrap();
    assert_ne!(stored(&server, "main"), files);
    server.with(|state| state.faults = vec![("/commit/", Fault::Status(403, 9))]);
    fs::write(dir.path().join("config.json"), "{}").unwrap();
    assert_says(
        upload(&server, dir.path()),
        &["to commit, it answered with status 403: as the test wants it", "lacks write access"],
    );
}

#[test]
fn nothing_is_committed_when_a_file_is_refused() {
    let (server, (dir, _)) = (FakeHub::start(), folder());
    server.with(|state| state.refuses_objects = true);
    assert_says(upload(&server, dir.path()), &["model.safetensors was refused: too large for you", "check"]);
    server.with(|state| (state.refuses_objects, state.faults) = (false, vec![("PUT", Fault::Status(403, 9))]));
    assert_says(upload(&server, dir.path()), &["to send model.safetensors", "403"]);
    server.with(|state| state.faults = vec![("/verify", Fault::Status(422, 9))]);
    assert_says(upload(&server, dir.path()), &["to have model.safetensors verified", "422"]);
    assert_eq!((stored(&server, "main").len(), server.commits(NAME).len()), (0, 0));
}

#[test]
fn what_fails_for_a_while_is_tried_again() {
    let (server, (dir, files)) = (FakeHub::start(), folder());
    server.with(|state| {
        state.faults = vec![
            ("PUT", Fault::Status(503, 1)),
            ("preupload", Fault::Status(500, 1)),
            ("/commit/", Fault::Status(429, 1)),
        ];
    });
    upload(&server, dir.path()).unwrap();
    assert_eq!((stored(&server, "main"), server.commits(NAME).len()), (files, 1));
    // A commit that may have been made is not made again.
    server.with(|state| state.faults = vec![("/commit/", Fault::Status(504, 9))]);
    fs::write(dir.path().join("config.json"), "{ }").unwrap();
    let asked = server.with(|state| state.requests.len());
    assert_says(upload(&server, dir.path()), &["to commit", "504", "push again later"]);
    let commits = server.with(|state| state.requests[asked..].iter().filter(|line| line.contains("/commit/")).count());
    assert_eq!(commits, 1);
}

#[test]
fn a_silent_server_is_given_up_soon() {
    for at in ["repos/create", "preupload", "objects/batch", "PUT", "/verify", "/commit/"] {
        let (server, (dir, _)) = (FakeHub::start(), folder());
        server.with(|state| state.faults.push((at, Fault::Silence)));
        let start = Instant::now();
        assert_says(upload(&server, dir.path()), &[NAME, "no answer within 500ms"]);
        assert!(start.elapsed() < Duration::from_secs(8), "{at}: {:?}", start.elapsed());
        assert_eq!(server.commits(NAME).len(), 0);
    }
    let nowhere = hub("http://127.0.0.1:1");
    let (dir, _) = folder();
    let said = nowhere.upload(&id(NAME), dir.path(), false, "a message", Observer::default());
    assert_says(said, &["127.0.0.1:1", "push again later"]);
}

#[test]
fn it_stops_when_it_is_told_to() {
    let (server, (dir, _)) = (FakeHub::start(), folder());
    server.with(|state| state.faults.push(("PUT", Fault::Silence)));
    let stop = std::sync::atomic::AtomicBool::new(false);
    let patient = Hub { timeout: Duration::from_secs(60), ..hub(&server.endpoint) };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let observer = Observer::stopped_by(&stop);
        let stopped = patient.upload(&id(NAME), dir.path(), false, "a message", observer);
        assert!(matches!(stopped, Err(Error::Stopped)));
    });
}

#[test]
fn answers_without_sense_are_errors() {
    let answers = [
        ("preupload", "<html>"),
        ("preupload", r#"{"files":[]}"#),
        ("objects/batch", r#"{"objects":[]}"#),
        ("objects/batch", r#"{"objects":"none"}"#),
        ("/commit/", "{}"),
    ];
    for (at, body) in answers {
        let (server, (dir, _)) = (FakeHub::start(), folder());
        server.with(|state| state.faults.push((at, Fault::Body(body))));
        assert_says(upload(&server, dir.path()), &[NAME, "is not understood", "HF_ENDPOINT"]);
    }
    let actions = [
        r#"{"upload":{"href":"ftp://elsewhere/x"}}"#,
        r#"{"upload":{"href":"http://127.0.0.1:1/","header":{"chunk_size":"0"}}}"#,
        r#"{"upload":{"href":"http://127.0.0.1:1/","header":{"chunk_size":"many"}}}"#,
        r#"{"upload":{"href":"http://127.0.0.1:1/","header":{"chunk_size":"1","1":"http://127.0.0.1:1/"}}}"#,
    ];
    for action in actions {
        let (server, (dir, files)) = (FakeHub::start(), folder());
        let oid = crate::fake_hub::sha256(&files["model.safetensors"]);
        let body = format!(r#"{{"objects":[{{"oid":"{oid}","size":100001,"actions":{action}}}]}}"#);
        server.with(|state| state.faults.push(("objects/batch", Fault::Body(body.leak()))));
        assert_says(upload(&server, dir.path()), &[NAME, "is not understood"]);
    }
}

#[test]
fn a_model_is_pushed_with_its_card() {
    let (server, dir) = (FakeHub::start(), tempdir().unwrap());
    let tensors = write_model(dir.path());
    let files = ModelFiles::open(dir.path()).unwrap();
    let request = PushRequest {
        id: id(NAME),
        hub: hub(&server.endpoint),
        private: false,
        message: "a message".into(),
        license: Some("apache-2.0".into()),
        dry_run: true,
    };
    let dry = push(&files, &request, Observer::default()).unwrap();
    assert_eq!(server.with(|state| state.requests.len()), 0);
    let request = PushRequest { dry_run: false, ..request };
    let pushed = push(&files, &request, Observer::default()).unwrap();
    assert_eq!(pushed.card, dry.card);
    let stored = stored(&server, "main");
    assert_eq!(stored["README.md"], pushed.card.as_bytes());
    let names = |files: &[gossamer::pipelines::PushedFile]| files.iter().map(|f| f.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&pushed.files), names(&dry.files));
    assert_eq!(stored.keys().cloned().collect::<Vec<_>>(), names(&pushed.files));
    let again = tempdir().unwrap();
    stored.iter().for_each(|(name, bytes)| fs::write(again.path().join(name), bytes).unwrap());
    let opened = ModelFiles::open(again.path()).unwrap();
    assert_eq!(crate::bits(opened.weights.as_ref()), crate::bits_of(&tensors));
    for part in ["library_name: gossamer", "license: \"apache-2.0\"", "| layers | 2 |", "gs.load(\"me/model\")"] {
        assert!(pushed.card.contains(part), "{}", pushed.card);
    }
    assert!(!pushed.card.contains("## Training") && !pushed.card.contains("datasets"));
    assert_eq!(push(&files, &request, Observer::default()).unwrap().commit, None);

    let wrong = PushRequest { license: Some("a b\nc: d".into()), ..request };
    assert_says(push(&files, &wrong, Observer::default()), &["license", "apache-2.0"]);
}

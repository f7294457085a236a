//! The Hub's cache as others leave it, and a small Hub on this machine that downloads come from.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gossamer::formats::hub::HubId;
use gossamer::formats::{FindOptions, Hub, ModelFiles};
use tempfile::tempdir;

use crate::{assert_says, write_model};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn options(cache: &Path, endpoint: &str, offline: bool) -> FindOptions {
    let hub = Hub { cache: cache.into(), endpoint: endpoint.into(), ..Hub::from_vars(|_| None) };
    FindOptions { offline, hub: Hub { timeout: Duration::from_millis(500), ..hub }, ..FindOptions::default() }
}

/// Nobody answers at this address.
const NOWHERE: &str = "http://127.0.0.1:1";

/// A cache with the tests' model, as Hugging Face's tools lay it out.
fn fill_cache(cache: &Path) -> PathBuf {
    let home = cache.join("models--some--model");
    let (blobs, snapshot) = (home.join("blobs"), home.join("snapshots").join(COMMIT));
    write_model(&blobs);
    fs::write(blobs.join("tokenizer.json"), "{}").unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        #[cfg(unix)]
        std::os::unix::fs::symlink(Path::new("../../blobs").join(name), snapshot.join(name)).unwrap();
        #[cfg(not(unix))]
        fs::copy(blobs.join(name), snapshot.join(name)).unwrap();
    }
    fs::create_dir_all(home.join("refs/pr")).unwrap();
    fs::write(home.join("refs/main"), format!("{COMMIT}\n")).unwrap();
    fs::write(home.join("refs/pr/5"), COMMIT).unwrap();
    snapshot
}

#[test]
fn what_the_cache_has_needs_no_network() {
    let dir = tempdir().unwrap();
    let snapshot = fill_cache(dir.path());
    let commit = format!("some/model@{COMMIT}");
    for spec in ["some/model", "some/model@main", "some/model@pr/5", &commit] {
        for offline in [true, false] {
            let files = ModelFiles::find(spec, &options(dir.path(), NOWHERE, offline)).unwrap();
            assert_eq!(files.weights_path, snapshot.join("model.safetensors"));
            assert_eq!(files.tokenizer, Some(snapshot.join("tokenizer.json")));
        }
    }
    // Without a tokenizer it would ask the Hub; when that is silent, the model still opens.
    fs::remove_file(snapshot.join("tokenizer.json")).unwrap();
    for offline in [true, false] {
        let files = ModelFiles::find("some/model", &options(dir.path(), NOWHERE, offline)).unwrap();
        assert_eq!(files.tokenizer, None);
    }
    let offline = options(dir.path(), NOWHERE, true);
    for spec in ["some/other", "some/model@v2"] {
        assert_says(
            ModelFiles::find(spec, &offline),
            &[spec, "no file or folder", "not in the cache", "once with network"],
        );
    }
    fs::remove_file(snapshot.parent().unwrap().parent().unwrap().join("blobs/model.safetensors")).unwrap();
    fs::remove_file(snapshot.join("model.safetensors")).unwrap();
    assert_says(ModelFiles::find("some/model", &offline), &["some/model", "lacks model.safetensors"]);
    fs::write(snapshot.join("model.safetensors.index.json"), r#"{"weight_map":{"w":"part-1.safetensors"}}"#).unwrap();
    assert_says(ModelFiles::find("some/model", &offline), &["some/model", "lacks part-1.safetensors"]);
    // A damaged reference leads nowhere, not out of the cache.
    fs::write(dir.path().join("models--some--model/refs/main"), "../../..").unwrap();
    assert_says(ModelFiles::find("some/model", &offline), &["not in the cache"]);
}

#[test]
fn ids_are_owner_name_and_revision() {
    let id = |repository: &str, revision: &str| HubId { repository: repository.into(), revision: revision.into() };
    assert_eq!(HubId::parse("openai/circuit-sparsity"), Some(id("openai/circuit-sparsity", "main")));
    assert_eq!(HubId::parse("a/b.c_d@refs/pr/5"), Some(id("a/b.c_d", "refs/pr/5")));
    assert_eq!(id("a/b", "main").to_string(), "a/b");
    assert_eq!(id("a/b", "v1").to_string(), "a/b@v1");
    for bad in
        ["", "a", "a/", "/a", "a/b/c", "../b", "a/..", "a/b@", "a/b@../c", "a/b@c@d", "a b/c", "./a", "a/-b", "a/é"]
    {
        assert_eq!(HubId::parse(bad), None, "{bad}");
    }
}

#[test]
fn the_environment_is_honoured() {
    let from = |vars: &[(&str, &str)]| {
        let vars: BTreeMap<String, OsString> = vars.iter().map(|(k, v)| (k.to_string(), v.into())).collect();
        Hub::from_vars(move |name| vars.get(name).cloned())
    };
    let hub = from(&[
        ("HF_HOME", "/h"),
        ("HF_ENDPOINT", "http://mirror/"),
        ("HF_TOKEN", " secret\n"),
        ("HF_HUB_OFFLINE", "1"),
    ]);
    assert_eq!(hub.cache, Path::new("/h/hub"));
    assert_eq!((hub.endpoint.as_str(), hub.token.as_deref(), hub.offline), ("http://mirror", Some("secret"), true));
    assert!(!format!("{hub:?}").contains("secret"));
    assert_eq!(from(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]).cache, Path::new("/c"));
    let hub = from(&[("XDG_CACHE_HOME", "/x"), ("HF_HUB_OFFLINE", "0"), ("HF_HUB_DOWNLOAD_TIMEOUT", "7")]);
    assert_eq!(hub.cache, Path::new("/x/huggingface/hub"));
    assert_eq!((hub.endpoint.as_str(), hub.offline), ("https://huggingface.co", false));
    assert_eq!(hub.timeout, Duration::from_secs(7));
}

#[cfg(not(feature = "hub"))]
#[test]
fn without_downloads_the_error_says_how_to_get_them() {
    let dir = tempdir().unwrap();
    let found = ModelFiles::find("some/model", &options(dir.path(), NOWHERE, false));
    assert_says(found, &["some/model", "--features hub", "hf download some/model"]);
}

#[cfg(feature = "hub")]
mod downloads {
    use super::*;
    use crate::{bits, bits_of};
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    /// A Hub with the files of one model, `some/model`, and the requests that it got.
    struct Server {
        endpoint: String,
        requests: Arc<Mutex<Vec<String>>>,
    }

    fn serve(files: BTreeMap<String, Vec<u8>>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &files, &log);
            }
        });
        Server { endpoint, requests }
    }

    fn answer(mut stream: TcpStream, files: &BTreeMap<String, Vec<u8>>, log: &Mutex<Vec<String>>) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        let Some(request) = lines.next() else { return };
        let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
        let path = request.split(' ').nth(1).unwrap().to_string();
        let range = headers.iter().find_map(|line| line.strip_prefix("range: bytes=")).unwrap_or("-").to_string();
        log.lock().unwrap().push(format!("{path} {range}"));
        let reply = |status: &str, more: &str, body: &[u8]| {
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{more}\r\n", body.len());
            [head.as_bytes(), body].concat()
        };
        let name = path.strip_prefix(&format!("/some/model/resolve/{COMMIT}/"));
        let file = name.or(path.strip_prefix("/large/")).and_then(|name| files.get(name));
        let bytes = if path == "/api/models/some/model/revision/main" {
            let siblings: Vec<_> = files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
            reply("200 OK", "", serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string().as_bytes())
        } else if path.contains("private") {
            reply("401 Unauthorized", "", b"")
        } else if name == Some("model.safetensors") {
            // Large files are on another server, which knows nothing of commits.
            let host = headers.iter().find_map(|line| line.strip_prefix("host: ")).unwrap();
            let place = format!("Location: http://{host}/large/model.safetensors\r\n");
            let tags = format!("X-Linked-ETag: \"abc\"\r\nETag: \"xyz\"\r\nX-Repo-Commit: {COMMIT}\r\n");
            reply("302 Found", &format!("{place}{tags}"), b"")
        } else if let Some(file) = file {
            let (from, to) = range.split_once('-').unwrap();
            let (from, last) = (from.parse().unwrap_or(0), file.len() - 1);
            let to = to.parse().unwrap_or(last).min(last);
            let tag = format!("{:016x}", file.iter().fold(7u64, |h, &b| h.wrapping_mul(31).wrapping_add(b.into())));
            let headers = format!(
                "Content-Range: bytes {from}-{to}/{}\r\nETag: \"{tag}\"\r\nX-Repo-Commit: {COMMIT}\r\n",
                file.len()
            );
            reply("206 Partial Content", &headers, &file[from..=to])
        } else {
            reply("404 Not Found", "", b"")
        };
        // A client that has gone away is no concern of the server's.
        let _ = stream.write_all(&bytes);
    }

    fn files_of(folder: &Path) -> BTreeMap<String, Vec<u8>> {
        let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        paths.map(|path| (path.file_name().unwrap().to_str().unwrap().into(), fs::read(path).unwrap())).collect()
    }

    #[test]
    fn a_model_is_downloaded_once_and_only_what_is_needed() {
        let dir = tempdir().unwrap();
        let tensors = write_model(&dir.path().join("model"));
        let mut files = files_of(&dir.path().join("model"));
        files.insert("tokenizer.json".into(), b"{}".to_vec());
        files.insert("final_model.pt".into(), b"large".to_vec());
        files.insert("modeling.py".into(), b"import os".to_vec());
        let server = serve(files);
        let cache = dir.path().join("new/cache");
        let options = options(&cache, &server.endpoint, false);
        let model = ModelFiles::find("some/model", &options).unwrap();
        assert_eq!(bits(model.weights.as_ref()), bits_of(&tensors));
        let snapshot = cache.join("models--some--model/snapshots").join(COMMIT);
        assert_eq!(model.tokenizer, Some(snapshot.join("tokenizer.json")));
        assert_eq!(
            files_of(&snapshot).into_keys().collect::<Vec<_>>(),
            ["config.json", "model.safetensors", "tokenizer.json"]
        );
        assert_eq!(fs::read_to_string(cache.join("models--some--model/refs/main")).unwrap(), COMMIT);
        assert!(cache.join("models--some--model/blobs/abc").is_file());

        let asked = server.requests.lock().unwrap().len();
        ModelFiles::find("some/model", &options).unwrap();
        assert_eq!(server.requests.lock().unwrap().len(), asked, "the cache was enough");

        // What got lost is fetched again, and nothing else.
        fs::remove_file(snapshot.join("model.safetensors").canonicalize().unwrap()).unwrap();
        ModelFiles::find("some/model", &options).unwrap();
        let again = server.requests.lock().unwrap()[asked..].join("\n");
        assert!(again.contains("model.safetensors") && !again.contains("config.json"), "{again}");
    }

    #[test]
    fn other_peoples_models_come_with_their_pytorch_weights() {
        let dir = tempdir().unwrap();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/foreign/gpt_neo");
        let mut files = files_of(Path::new(folder));
        files.insert("flax_model.msgpack".into(), b"large".to_vec());
        let server = serve(files);
        let model = ModelFiles::find("some/model", &options(dir.path(), &server.endpoint, false)).unwrap();
        assert_eq!(bits(model.weights.as_ref()), bits(ModelFiles::open(folder).unwrap().weights.as_ref()));
        let snapshot = dir.path().join("models--some--model/snapshots").join(COMMIT);
        assert_eq!(files_of(&snapshot).into_keys().collect::<Vec<_>>(), ["config.json", "pytorch_model.bin"]);
        // The cache has all that there is to it.
        ModelFiles::find("some/model", &options(dir.path(), &server.endpoint, true)).unwrap();
    }

    #[test]
    fn shards_come_with_their_index_and_a_download_resumes() {
        let dir = tempdir().unwrap();
        let tensors = write_model(&dir.path().join("model"));
        let mut files = files_of(&dir.path().join("model"));
        let weights = files.remove("model.safetensors").unwrap();
        let map: BTreeMap<_, _> = tensors.keys().map(|name| (name, "part-1.safetensors")).collect();
        let index = serde_json::json!({ "weight_map": map }).to_string().into_bytes();
        files.insert("model.safetensors.index.json".into(), index);
        files.insert("part-1.safetensors".into(), weights.clone());
        let server = serve(files);
        let cache = dir.path().join("cache");
        let options = options(&cache, &server.endpoint, false);
        let first = ModelFiles::find("some/model", &options).unwrap();
        assert_eq!(bits(first.weights.as_ref()), bits_of(&tensors));
        // The model has no tokenizer, which is remembered.
        let asked = server.requests.lock().unwrap().len();
        assert_eq!(ModelFiles::find("some/model", &options).unwrap().tokenizer, None);
        assert_eq!(server.requests.lock().unwrap().len(), asked);

        // As if the download had been cut off after 100 bytes.
        let snapshot = cache.join("models--some--model/snapshots").join(COMMIT);
        let blob = snapshot.join("part-1.safetensors").canonicalize().unwrap();
        fs::remove_file(&blob).unwrap();
        fs::write(blob.with_extension("part"), &weights[..100]).unwrap();
        let second = ModelFiles::find("some/model", &options).unwrap();
        assert_eq!(bits(second.weights.as_ref()), bits_of(&tensors));
        assert!(server.requests.lock().unwrap().iter().any(|line| line.ends_with("part-1.safetensors 100-")));
    }

    #[test]
    fn what_fails_says_what_to_do_and_soon() {
        let dir = tempdir().unwrap();
        let start = Instant::now();
        let found = ModelFiles::find("some/model", &options(dir.path(), NOWHERE, false));
        assert_says(found, &["some/model", NOWHERE, "hf download some/model", "HF_ENDPOINT"]);
        let server = serve(BTreeMap::from([("README.md".to_string(), b"x".to_vec())]));
        let with = options(dir.path(), &server.endpoint, false);
        for spec in ["some/private", "some/nothing", "some/model@v9"] {
            assert_says(ModelFiles::find(spec, &with), &[spec, "check the name", "HF_TOKEN"]);
        }
        assert_says(ModelFiles::find("some/model", &with), &["some/model", "not such a model", "config.json"]);

        // Someone who listens but never speaks.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", silent.local_addr().unwrap());
        let found = ModelFiles::find("some/model", &options(dir.path(), &endpoint, false));
        assert_says(found, &["some/model", "no answer within 500ms"]);
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }
}

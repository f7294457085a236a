//! Data sets of the Hub: from the cache, and from a small Hub on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gossamer::hub::Hub;
use gossamer::text::source::Source;
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn source(spec: &str, cache: &Path, endpoint: &str, offline: bool) -> Source {
    let hub = Hub { cache: cache.into(), endpoint: endpoint.into(), offline, ..Hub::from_vars(|_| None) };
    Source { hub: Hub { timeout: Duration::from_millis(500), ..hub }, ..Source::new([spec]).with_field("story") }
}

fn read(source: &Source) -> Result<Vec<String>, String> {
    source.documents().and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(|error| error.to_string())
}

fn table(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tables").join(name)).unwrap()
}

/// A Hub with the Parquet files of one data set, `some/stories`, and the requests that it got.
struct Server {
    endpoint: String,
    requests: Arc<Mutex<Vec<String>>>,
}

fn serve(files: BTreeMap<&'static str, Vec<u8>>) -> Server {
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

fn answer(mut stream: TcpStream, files: &BTreeMap<&str, Vec<u8>>, log: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
    let path = request.split(' ').nth(1).unwrap().to_string();
    log.lock().unwrap().push(path.clone());
    let range = headers.iter().find_map(|line| line.strip_prefix("range: bytes=")).unwrap_or("-");
    let reply = |status: &str, more: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{more}\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let name = path.strip_prefix(&format!("/datasets/some/stories/resolve/{COMMIT}/"));
    let bytes = if path == "/api/datasets/some/stories/revision/refs%2Fconvert%2Fparquet" {
        let siblings: Vec<_> = files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
        reply("200 OK", "", serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string().as_bytes())
    } else if let Some(file) = name.and_then(|name| files.get(name)) {
        let (from, to) = range.split_once('-').unwrap();
        let (from, last) = (from.parse().unwrap_or(0), file.len() - 1);
        let to = to.parse().unwrap_or(last).min(last);
        let tag = format!("{:x}", file.iter().fold(7u64, |hash, &byte| hash.wrapping_mul(31) + u64::from(byte)));
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

fn stories() -> BTreeMap<&'static str, Vec<u8>> {
    BTreeMap::from([
        ("default/train/0000.parquet", table("zstd.parquet")),
        ("default/train/0001.parquet", table("nested.parquet")),
        ("default/test/0000.parquet", table("nested.parquet")),
        (".gitattributes", b"*.parquet".to_vec()),
    ])
}

#[test]
fn shards_are_downloaded_when_they_are_read_and_once() {
    let (server, cache) = (serve(stories()), TempDir::new().unwrap());
    let open = |spec| source(spec, cache.path(), &server.endpoint, false);
    let count = |part: &str| server.requests.lock().unwrap().iter().filter(|path| path.ends_with(part)).count();
    let mut documents = open("hub:some/stories").documents().unwrap();
    assert_eq!(documents.next().unwrap().unwrap(), "Once upon a time.");
    assert_eq!((count("0000.parquet") > 0, count("0001.parquet")), (true, 0), "only what was read");
    assert_eq!(documents.last().unwrap().unwrap(), "two");
    assert_eq!(read(&open("hub:some/stories:default/test")).unwrap(), ["one", "two"]);
    let asked = count(".parquet");
    let all = read(&open("hub:some/stories")).unwrap();
    assert_eq!((all.len(), count(".parquet")), (9, asked), "the cache was enough");
    assert!(
        cache.path().join(format!("datasets--some--stories/snapshots/{COMMIT}/default/train/0000.parquet")).exists()
    );
    // And without network, by its name or its commit.
    let offline = |spec: &str| source(spec, cache.path(), "http://127.0.0.1:1", true);
    assert_eq!(read(&offline("hub:some/stories")).unwrap(), all);
    assert_eq!(read(&offline(&format!("hub:some/stories@{COMMIT}"))).unwrap(), all);
}

#[test]
fn what_fails_says_what_to_do() {
    let (server, cache) = (serve(stories()), TempDir::new().unwrap());
    let online = |spec: &str| read(&source(spec, cache.path(), &server.endpoint, false)).unwrap_err();
    let offline = |spec: &str| read(&source(spec, cache.path(), &server.endpoint, true)).unwrap_err();
    for (said, parts) in [
        (online("hub:stories"), &["hub:stories", "hub:OWNER/NAME"][..]),
        (online("hub:some/nothing"), &["some/nothing", "no such data set", "HF_TOKEN"]),
        (online("hub:some/stories:other"), &["default/test, default/train", "colon"]),
        (offline("hub:some/new"), &["not in the cache", "switched off"]),
    ] {
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    }
    let unread = read(&source("hub:some/stories:default/test", cache.path(), &server.endpoint, true)).unwrap_err();
    assert!(unread.contains("lacks default/test/0000.parquet"), "{unread}");
}

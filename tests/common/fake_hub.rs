//! A small Hub on this machine that models are pushed to. It speaks the protocol as far as pushing
//! needs it, and says what it got.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Whose token may write.
pub const TOKEN: &str = "hf_writer";

/// What goes wrong at addresses that contain a text.
#[derive(Clone)]
pub enum Fault {
    /// Nothing is answered.
    Silence,
    /// This is answered, so many times.
    Status(u16, u32),
    /// This is answered.
    Body(&'static str),
}

#[derive(Default)]
pub struct State {
    pub repositories: BTreeMap<String, Repository>,
    /// Large files by SHA-256.
    pub objects: BTreeMap<String, Vec<u8>>,
    parts: BTreeMap<String, BTreeMap<usize, Vec<u8>>>,
    /// The requests: method and path.
    pub requests: Vec<String>,
    /// The size of parts, if large files come in parts.
    pub part_size: Option<usize>,
    /// Large files are not taken.
    pub refuses_objects: bool,
    pub faults: Vec<(&'static str, Fault)>,
    /// What no client may do.
    pub complaints: Vec<String>,
}

#[derive(Default)]
pub struct Repository {
    pub private: bool,
    /// The files of each branch.
    pub branches: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// The first lines of commits.
    pub commits: Vec<String>,
}

pub struct FakeHub {
    pub endpoint: String,
    pub state: Arc<Mutex<State>>,
}

struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl FakeHub {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, own) = (state.clone(), endpoint.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (state, endpoint) = (shared.clone(), own.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &state, &endpoint));
            }
        });
        Self { endpoint, state }
    }

    pub fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap())
    }

    /// The files of a branch.
    pub fn files(&self, repository: &str, branch: &str) -> BTreeMap<String, Vec<u8>> {
        self.with(|state| {
            let repository = state.repositories.get(repository);
            repository.and_then(|repository| repository.branches.get(branch)).cloned().unwrap_or_default()
        })
    }

    pub fn commits(&self, repository: &str) -> Vec<String> {
        self.with(|state| state.repositories.get(repository).map(|r| r.commits.clone()).unwrap_or_default())
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        Some(line.trim_end().to_string())
    };
    let first = line()?;
    let mut headers = BTreeMap::new();
    while let Some(line) = line().filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_lowercase(), value.trim().to_string());
    }
    let length = headers.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut words = first.split(' ').map(String::from);
    Some(Request { method: words.next()?, path: words.next()?, headers, body })
}

fn serve(mut stream: TcpStream, state: &Mutex<State>, endpoint: &str) {
    let Some(request) = read(&stream) else { return };
    let line = format!("{} {}", request.method, request.path);
    let fault = {
        let mut state = state.lock().unwrap();
        state.requests.push(line.clone());
        let fault = state.faults.iter_mut().find(|(at, _)| line.contains(at));
        fault.and_then(|(_, fault)| match fault {
            Fault::Status(_, 0) => None,
            Fault::Status(status, times) => {
                *times -= 1;
                Some(Fault::Status(*status, 0))
            }
            other => Some(other.clone()),
        })
    };
    let (status, headers, body) = match fault {
        Some(Fault::Silence) => {
            std::thread::sleep(Duration::from_secs(60));
            return;
        }
        Some(Fault::Status(status, _)) => (status, String::new(), r#"{"error":"as the test wants it"}"#.into()),
        Some(Fault::Body(body)) => (200, String::new(), body.into()),
        None => answer(&request, &mut state.lock().unwrap(), endpoint),
    };
    let head = format!("HTTP/1.1 {status} .\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n", body.len());
    // A client that has gone away is no concern of the server's.
    let _ = stream.write_all(&[head.as_bytes(), body.as_bytes()].concat());
}

type Answer = (u16, String, String);

fn plain(status: u16, value: Value) -> Answer {
    (status, String::new(), value.to_string())
}

fn answer(request: &Request, state: &mut State, endpoint: &str) -> Answer {
    let authorization = request.headers.get("authorization");
    let parts: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
    if parts[0] == "storage" {
        if authorization.is_some() {
            state.complaints.push(format!("the token was sent to {}", request.path));
        }
        if !request.headers.contains_key("content-length") {
            state.complaints.push("an upload without its length".into());
        }
        return store(&parts[1..], request, state);
    }
    if authorization.map(String::as_str) != Some(&format!("Bearer {TOKEN}")) {
        return plain(401, json!({ "error": "Invalid username or password." }));
    }
    let json: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    match (&*request.method, &parts[..]) {
        ("POST", ["api", "repos", "create"]) => create(&json, state),
        ("GET", ["api", "models", owner, name]) => match state.repositories.get(&format!("{owner}/{name}")) {
            Some(found) => plain(200, json!({ "id": format!("{owner}/{name}"), "private": found.private, "sha": "0" })),
            None => plain(404, json!({ "error": "Repository not found" })),
        },
        ("POST", ["api", "models", owner, name, what, revision]) => {
            let revision = revision.replace("%2F", "/");
            let id = format!("{owner}/{name}");
            let Some(repository) = state.repositories.get_mut(&id) else {
                return plain(404, json!({ "error": "Repository not found" }));
            };
            if *what == "branch" {
                let main = repository.branches.get("main").cloned().unwrap_or_default();
                return match repository.branches.insert(revision, main) {
                    None => plain(200, json!({})),
                    Some(_) => plain(409, json!({ "error": "Reference already exists" })),
                };
            }
            let Some(branch) = repository.branches.get(&revision) else {
                return plain(404, json!({ "error": "Revision not found" }));
            };
            match *what {
                "preupload" => preupload(&json, branch),
                "commit" => commit(&request.body, state, &id, &revision),
                _ => plain(404, json!({})),
            }
        }
        ("POST", [_, name, "info", "lfs", "objects", "batch"]) if name.ends_with(".git") => {
            batch(&json, state, endpoint)
        }
        ("POST", ["complete", oid]) => complete(oid, &json, state),
        ("POST", ["verify"]) => {
            let found = state.objects.get(json["oid"].as_str().unwrap()).map(Vec::len);
            let same = found.map(|n| n as u64) == json["size"].as_u64();
            plain(if same { 200 } else { 400 }, json!({}))
        }
        _ => plain(404, json!({ "error": "no such address" })),
    }
}

fn create(json: &Value, state: &mut State) -> Answer {
    let id = format!("{}/{}", json["organization"].as_str().unwrap(), json["name"].as_str().unwrap());
    if state.repositories.contains_key(&id) {
        return plain(409, json!({ "error": "You already created this model repo" }));
    }
    let private = json["visibility"] == "private";
    let attributes = ("*.safetensors filter=lfs\n".to_string()).into_bytes();
    let main = BTreeMap::from([(".gitattributes".to_string(), attributes)]);
    let branches = BTreeMap::from([("main".to_string(), main)]);
    state.repositories.insert(id, Repository { private, branches, commits: Vec::new() });
    plain(200, json!({ "url": "" }))
}

fn is_large(path: &str) -> bool {
    [".safetensors", ".pt", ".bin"].iter().any(|end| path.ends_with(end))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn preupload(json: &Value, branch: &BTreeMap<String, Vec<u8>>) -> Answer {
    let file = |file: &Value| {
        let path = file["path"].as_str().unwrap();
        let sample = STANDARD.decode(file["sample"].as_str().unwrap()).unwrap();
        assert!(sample.len() as u64 == file["size"].as_u64().unwrap().min(512));
        let oid = branch.get(path).map(|bytes| match is_large(path) && !bytes.is_empty() {
            true => sha256(bytes),
            false => hex(&Sha1::digest([format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat())),
        });
        let mode = if is_large(path) { "lfs" } else { "regular" };
        json!({ "path": path, "uploadMode": mode, "shouldIgnore": false, "oid": oid })
    };
    let files: Vec<Value> = json["files"].as_array().unwrap().iter().map(file).collect();
    plain(200, json!({ "files": files }))
}

fn batch(json: &Value, state: &State, endpoint: &str) -> Answer {
    // Another host, which gets no token.
    let storage = endpoint.replace("127.0.0.1", "localhost") + "/storage";
    let object = |object: &Value| {
        let (oid, size) = (object["oid"].as_str().unwrap(), object["size"].as_u64().unwrap() as usize);
        if state.refuses_objects {
            return json!({ "oid": oid, "size": size, "error": { "code": 422, "message": "too\nlarge for you" } });
        }
        if state.objects.contains_key(oid) {
            return json!({ "oid": oid, "size": size });
        }
        let upload = match state.part_size {
            None => json!({ "href": format!("{storage}/{oid}") }),
            Some(part) => {
                let mut header = serde_json::Map::from_iter([("chunk_size".to_string(), json!(part.to_string()))]);
                for number in 1..=size.div_ceil(part) {
                    header.insert(format!("{number:05}"), json!(format!("{storage}/{oid}/{number}")));
                }
                json!({ "href": format!("{endpoint}/complete/{oid}"), "header": header })
            }
        };
        let actions = json!({ "upload": upload, "verify": { "href": format!("{endpoint}/verify"), "header": {} } });
        json!({ "oid": oid, "size": size, "authenticated": true, "actions": actions })
    };
    let objects: Vec<Value> = json["objects"].as_array().unwrap().iter().map(object).collect();
    plain(200, json!({ "transfer": "basic", "objects": objects }))
}

fn store(parts: &[&str], request: &Request, state: &mut State) -> Answer {
    match parts {
        [oid] if sha256(&request.body) == *oid => {
            state.objects.insert(oid.to_string(), request.body.clone());
            (200, String::new(), String::new())
        }
        [oid, number] => {
            let number = number.parse().unwrap();
            state.parts.entry(oid.to_string()).or_default().insert(number, request.body.clone());
            (200, format!("ETag: \"part-{number}\"\r\n"), String::new())
        }
        _ => (400, String::new(), "<Error>other bytes</Error>".into()),
    }
}

fn complete(oid: &str, json: &Value, state: &mut State) -> Answer {
    let parts = state.parts.remove(oid).unwrap_or_default();
    let tags: Vec<String> = parts.keys().map(|number| format!("\"part-{number}\"")).collect();
    let named: Vec<&str> =
        json["parts"].as_array().unwrap().iter().map(|part| part["etag"].as_str().unwrap()).collect();
    let whole = parts.into_values().collect::<Vec<_>>().concat();
    if json["oid"] != oid || named != tags || sha256(&whole) != oid {
        return plain(400, json!({ "error": "the parts are not the file" }));
    }
    state.objects.insert(oid.to_string(), whole);
    plain(200, json!({}))
}

fn commit(body: &[u8], state: &mut State, id: &str, revision: &str) -> Answer {
    let lines: Vec<Value> =
        body.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect();
    let mut files = BTreeMap::new();
    for line in &lines {
        let value = &line["value"];
        let path = || value["path"].as_str().unwrap().to_string();
        match line["key"].as_str().unwrap() {
            "header" => {}
            "file" => drop(files.insert(path(), STANDARD.decode(value["content"].as_str().unwrap()).unwrap())),
            "lfsFile" => match state.objects.get(value["oid"].as_str().unwrap()) {
                Some(bytes) => drop(files.insert(path(), bytes.clone())),
                None => return plain(400, json!({ "error": "no such object" })),
            },
            key => return plain(400, json!({ "error": key })),
        }
    }
    let repository = state.repositories.get_mut(id).unwrap();
    repository.branches.get_mut(revision).unwrap().extend(files);
    repository.commits.push(lines[0]["value"]["summary"].as_str().unwrap().to_string());
    let commit = format!("{:040}", repository.commits.len());
    plain(200, json!({ "commitOid": commit, "commitUrl": "", "success": true }))
}

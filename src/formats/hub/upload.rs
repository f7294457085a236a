//! Uploads to the Hub, as one commit: it holds all files of a push or, when a push is cut short,
//! none. Never waits for a silent server longer than agreed.
//!
//! The order of requests: the repository is created unless it exists, and so is a branch other than
//! `main`; the Hub says for each file whether it is stored apart, by Git LFS, and what it has under
//! that name; files stored apart are sent, in one piece or in the parts that the Hub asks for; the
//! commit names these and holds the others.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use ureq::http::{Request, Response};
use ureq::{Agent, SendBody};

use super::{Hub, HubId, Uploaded, UploadedFile};
use crate::observer::{Observer, Stage};
use crate::{Error, Result};

/// How often a request is sent at most.
const ATTEMPTS: u32 = 4;

/// The pause before the second attempt; before each further one it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// What a server that asks for patience gets at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Between two looks at whether to stop.
const POLL: Duration = Duration::from_millis(50);

/// Of an answer, what is read.
const MAX_ANSWER: u64 = 4 << 20;

/// What a commit may hold of a file, which is in memory then. The Hub stores larger files apart.
const MAX_IN_COMMIT: u64 = 64 << 20;

/// Files that one request asks about.
const AT_ONCE: usize = 256;

/// The part of a file that the Hub chooses the kind of storage by.
const SAMPLE: u64 = 512;

const LFS_JSON: &str = "application/vnd.git-lfs+json";

/// Pushes all files of `folder`, and of folders in it, as one commit to the revision of `id`.
pub(super) fn upload(
    hub: &Hub,
    id: &HubId,
    folder: &Path,
    private: bool,
    message: &str,
    observer: Observer,
) -> Result<Uploaded> {
    let Some(token) = &hub.token else {
        return Err(Error::Hub(format!(
            "{} takes files only from someone it knows: set HF_TOKEN to a token with write access, or run `hf auth login`",
            hub.endpoint
        )));
    };
    let client = UploadClient { hub, id, token, agent: agent(hub.timeout), observer };
    let mut files = local_files(folder)?;
    client.create_repository(private)?;
    client.create_branch()?;
    client.ask_about(&mut files)?;
    let mut changed = Vec::new();
    for file in &files {
        client.observer.check()?;
        let digest = file.digest(&client)?;
        if file.remote.as_deref() != Some(&digest) {
            changed.push((file, digest));
        }
    }
    for part in changed.chunks(AT_ONCE) {
        client.send_apart(part)?;
    }
    let commit = if changed.is_empty() { None } else { Some(client.commit(&changed, message)?) };
    let is_sent = |file: &LocalFile| changed.iter().any(|(sent, _)| sent.name == file.name);
    let uploaded = |file: &LocalFile| UploadedFile { name: file.name.clone(), bytes: file.size, sent: is_sent(file) };
    Ok(Uploaded { files: files.iter().map(uploaded).collect(), commit })
}

/// A file to be pushed.
struct LocalFile {
    /// Its name in the repository.
    name: String,
    path: PathBuf,
    size: u64,
    /// Whether it is stored apart.
    apart: bool,
    /// What the revision has under its name.
    remote: Option<String>,
}

impl LocalFile {
    fn open(&self) -> Result<File> {
        File::open(&self.path).map_err(|e| Error::io(&self.path, e))
    }

    fn sample(&self) -> Result<Vec<u8>> {
        let mut sample = Vec::new();
        self.open()?.take(SAMPLE).read_to_end(&mut sample).map_err(|e| Error::io(&self.path, e))?;
        Ok(sample)
    }

    /// How the Hub names its contents: by SHA-256 if they are stored apart, otherwise as Git does.
    fn digest(&self, client: &UploadClient) -> Result<String> {
        if self.apart {
            return self.hashed(Sha256::new(), client);
        }
        let mut hash = Sha1::new();
        hash.update(format!("blob {}\0", self.size));
        self.hashed(hash, client)
    }

    fn hashed(&self, mut hash: impl Digest, client: &UploadClient) -> Result<String> {
        let (mut file, mut block, mut done) = (self.open()?, vec![0; 1 << 20], 0);
        loop {
            let n = file.read(&mut block).map_err(|e| Error::io(&self.path, e))?;
            if n == 0 {
                break;
            }
            hash.update(&block[..n]);
            done += n as u64;
            client.advance("hashing", done, self.size)?;
        }
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// The files of a folder, in the order of their names.
fn local_files(folder: &Path) -> Result<Vec<LocalFile>> {
    let mut files = Vec::new();
    let mut folders = vec![(folder.to_path_buf(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|e| Error::io(&folder, e))? {
            let path = entry.map_err(|e| Error::io(&folder, e))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let name =
                name.ok_or_else(|| Error::file(&path, "has a name that is no text, which the Hub cannot hold"))?;
            let name = format!("{prefix}{name}");
            let metadata = path.metadata().map_err(|e| Error::io(&path, e))?;
            match metadata.is_dir() {
                true => folders.push((path, format!("{name}/"))),
                false => files.push(LocalFile { name, path, size: metadata.len(), apart: false, remote: None }),
            }
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn agent(timeout: Duration) -> Agent {
    // A request is on its own thread, which is given up when it is silent for too long. Later, these
    // limits end the thread as well.
    let silence = Some(timeout.saturating_mul(2).saturating_add(Duration::from_secs(1)));
    Agent::config_builder()
        .http_status_as_error(false)
        .user_agent(concat!("gossamer/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(silence)
        .timeout_connect(silence)
        .timeout_per_read(silence)
        .timeout_per_write(silence)
        .build()
        .into()
}

/// What is sent with a request.
#[derive(Clone)]
enum Content {
    Nothing,
    Json(Arc<[u8]>, &'static str),
    /// Part of a file: where it begins, and its length.
    Part(PathBuf, u64, u64),
}

impl Content {
    fn json(value: &Value) -> Self {
        Self::Json(value.to_string().into_bytes().into(), "application/json")
    }

    fn lfs(value: &Value) -> Self {
        Self::Json(value.to_string().into_bytes().into(), LFS_JSON)
    }
}

/// What a server says.
struct Answer {
    status: u16,
    etag: Option<String>,
    /// What it says of itself.
    message: Option<String>,
    pause: Option<Duration>,
    body: Vec<u8>,
}

impl Answer {
    fn of(mut response: Response<ureq::Body>) -> Result<Self, String> {
        let status = response.status().as_u16();
        let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_string());
        let (etag, said) = (header("etag"), header("x-error-message"));
        let pause = header("retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
        let body = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec().map_err(|e| e.to_string())?;
        let in_body = || {
            let value: Value = serde_json::from_slice(&body).ok()?;
            Some(value.get("error").or(value.get("message"))?.as_str()?.to_string())
        };
        let message = said.or_else(in_body).map(|text| printable(&text));
        Ok(Self { status, etag, message, pause, body })
    }

    fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether the same request may succeed later.
    fn is_temporary(&self) -> bool {
        matches!(self.status, 408 | 429 | 500 | 502 | 503 | 504)
    }

    fn reason(&self) -> String {
        let said = self.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
        format!("it answered with status {}{said}", self.status)
    }
}

/// A server's words, of a length and with characters that may stand in a message.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

/// What can come of an attempt.
enum Failure {
    /// Nothing came for so long.
    Silent(Duration),
    /// The connection failed.
    Broken(String),
}

/// When a request may be sent again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// Sent twice, it does the same as once.
    Always,
    /// Only if the server says that it did nothing.
    IfRefused,
}

impl Repeat {
    fn allows(self, status: u16) -> bool {
        self == Self::Always || matches!(status, 429 | 503)
    }
}

struct UploadClient<'a> {
    hub: &'a Hub,
    id: &'a HubId,
    token: &'a str,
    agent: Agent,
    observer: Observer<'a>,
}

/// What the Hub says of a file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Preupload {
    path: String,
    upload_mode: String,
    oid: Option<String>,
}

/// Where an object of Git LFS goes.
#[derive(Deserialize)]
struct LfsObject {
    oid: String,
    actions: Option<LfsActions>,
    error: Option<LfsError>,
}

#[derive(Deserialize)]
struct LfsActions {
    upload: Option<LfsAction>,
    verify: Option<LfsAction>,
}

#[derive(Deserialize)]
struct LfsAction {
    href: String,
    header: Option<serde_json::Map<String, Value>>,
}

#[derive(Deserialize)]
struct LfsError {
    message: String,
}

impl UploadClient<'_> {
    fn advance(&self, name: &str, done: u64, total: u64) -> Result<()> {
        self.observer.advance(&Stage { name, done, total: Some(total), unit: "bytes" })
    }

    fn api(&self, rest: &str) -> String {
        format!("{}/api/models/{}{rest}", self.hub.endpoint, self.id.repository)
    }

    /// The revision, as a part of an address.
    fn revision(&self) -> String {
        self.id.revision.replace('/', "%2F")
    }

    fn create_repository(&self, private: bool) -> Result<()> {
        let (owner, name) = self.id.repository.split_once('/').unwrap_or(("", &self.id.repository));
        let mut wanted = json!({ "name": name, "organization": owner, "type": "model" });
        if private {
            wanted["visibility"] = "private".into();
        }
        let url = format!("{}/api/repos/create", self.hub.endpoint);
        let answer = self.send("POST", &url, &[], &Content::json(&wanted))?;
        match answer.status {
            409 if !private => Ok(()),
            409 => {
                let found = self.send("GET", &self.api(""), &[], &Content::Nothing)?;
                self.check_privacy(&self.expect(found, "look at the repository")?, private)
            }
            // Whoever may not create repositories may still be allowed to write to one.
            401..=403 => match self.send("GET", &self.api(""), &[], &Content::Nothing)? {
                found if found.is_success() => self.check_privacy(&found, private),
                _ => Err(self.refused("create the repository", &answer)),
            },
            _ => self.expect(answer, "create the repository").map(drop),
        }
    }

    /// Returns an error if the repository that was found is public and must not be.
    fn check_privacy(&self, found: &Answer, private: bool) -> Result<()> {
        let found: Value = self.read(found)?;
        if private && found["private"] != true {
            let (endpoint, repository) = (&self.hub.endpoint, &self.id.repository);
            return Err(Error::Hub(format!(
                "{repository} exists and is public: make it private at {endpoint}/{repository}/settings, or push without \
                 --private"
            )));
        }
        Ok(())
    }

    fn create_branch(&self) -> Result<()> {
        if self.id.revision == "main" {
            return Ok(());
        }
        let url = self.api(&format!("/branch/{}", self.revision()));
        let answer = self.send("POST", &url, &[], &Content::json(&json!({})))?;
        if answer.status == 409 { Ok(()) } else { self.expect(answer, "create the branch").map(drop) }
    }

    /// Learns how each file is stored, and what the revision has under its name.
    fn ask_about(&self, files: &mut [LocalFile]) -> Result<()> {
        #[derive(Deserialize)]
        struct Listed {
            files: Vec<Preupload>,
        }
        let url = self.api(&format!("/preupload/{}", self.revision()));
        for files in files.chunks_mut(AT_ONCE) {
            let mut asked = Vec::with_capacity(files.len());
            for file in files.iter() {
                asked.push(json!({ "path": file.name, "sample": STANDARD.encode(file.sample()?), "size": file.size }));
            }
            let answer = self.send("POST", &url, &[], &Content::json(&json!({ "files": asked })))?;
            let listed: Listed = self.read(&self.expect(answer, "ask how files are stored")?)?;
            for file in files {
                let Some(known) = listed.files.iter().find(|known| known.path == file.name) else {
                    return Err(self.unclear(&format!("it says nothing of {}", file.name)));
                };
                // Nothing cannot be stored apart.
                file.apart = known.upload_mode == "lfs" && file.size > 0;
                file.remote.clone_from(&known.oid);
                if !file.apart && file.size > MAX_IN_COMMIT {
                    return Err(
                        self.unclear(&format!("it wants the {} bytes of {} in the commit", file.size, file.name))
                    );
                }
            }
        }
        Ok(())
    }

    /// Sends those of some files that are stored apart and that the Hub does not have.
    fn send_apart(&self, files: &[(&LocalFile, String)]) -> Result<()> {
        #[derive(Deserialize)]
        struct LfsBatch {
            objects: Vec<LfsObject>,
        }
        let apart: Vec<_> = files.iter().filter(|(file, _)| file.apart).collect();
        if apart.is_empty() {
            return Ok(());
        }
        let objects: Vec<Value> = apart.iter().map(|(file, oid)| json!({ "oid": oid, "size": file.size })).collect();
        let wanted = json!({
            "operation": "upload",
            "transfers": ["basic", "multipart"],
            "objects": objects,
            "hash_algo": "sha256",
            "ref": { "name": self.id.revision },
        });
        let url = format!("{}/{}.git/info/lfs/objects/batch", self.hub.endpoint, self.id.repository);
        let answer = self.send("POST", &url, &[("accept", LFS_JSON.into())], &Content::lfs(&wanted))?;
        let batch: LfsBatch = self.read(&self.expect(answer, "send large files")?)?;
        for (file, oid) in apart {
            let Some(object) = batch.objects.iter().find(|object| object.oid == *oid) else {
                return Err(self.unclear(&format!("it does not say where {} goes", file.name)));
            };
            if let Some(error) = &object.error {
                let reason = printable(&error.message);
                return Err(self.error(&format!("{} was refused: {reason}", file.name), UploadRemedy::CheckRepository));
            }
            let Some(LfsActions { upload: Some(upload), verify }) = &object.actions else { continue };
            self.send_file(file, oid, upload)?;
            if let Some(verify) = verify {
                let what = format!("have {} verified", file.name);
                let content = Content::lfs(&json!({ "oid": oid, "size": file.size }));
                let answer =
                    self.send("POST", &self.address(&verify.href)?, &[("accept", LFS_JSON.into())], &content)?;
                self.expect(answer, &what)?;
            }
        }
        Ok(())
    }

    fn send_file(&self, file: &LocalFile, oid: &str, action: &LfsAction) -> Result<()> {
        let url = self.address(&action.href)?;
        let what = format!("send {}", file.name);
        let header = action.header.clone().unwrap_or_default();
        let Some(part_size) = header.get("chunk_size") else {
            let texts = header.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?.to_string())));
            let headers: Vec<_> = texts.collect();
            let content = Content::Part(file.path.clone(), 0, file.size);
            let answer = self.send("PUT", &url, &headers, &content)?;
            return self.expect(answer, &what).map(drop);
        };
        let number = part_size.as_u64().or_else(|| part_size.as_str()?.parse().ok()).filter(|&size| size > 0);
        let part_size =
            number.ok_or_else(|| self.unclear(&format!("it wants {} in parts of {part_size}", file.name)))?;
        let mut parts: Vec<(u64, &str)> =
            header.iter().filter_map(|(key, url)| Some((key.parse().ok()?, url.as_str()?))).collect();
        parts.sort_unstable();
        if parts.len() as u64 != file.size.div_ceil(part_size) {
            let message =
                format!("it wants {} bytes of {} in {} parts of {part_size}", file.size, file.name, parts.len());
            return Err(self.unclear(&message));
        }
        let mut done = Vec::with_capacity(parts.len());
        for (at, (number, url)) in (0u64..).zip(parts) {
            let start = at * part_size;
            let content = Content::Part(file.path.clone(), start, part_size.min(file.size - start));
            let answer = self.send("PUT", &self.address(url)?, &[], &content)?;
            let answer = self.expect(answer, &what)?;
            let etag = answer.etag.ok_or_else(|| self.unclear(&format!("it names no tag of part {number}")))?;
            done.push(json!({ "partNumber": number, "etag": etag }));
        }
        let content = Content::lfs(&json!({ "oid": oid, "parts": done }));
        let answer = self.send("POST", &url, &[("accept", LFS_JSON.into())], &content)?;
        self.expect(answer, &what).map(drop)
    }

    /// Makes the commit, and returns its name.
    fn commit(&self, files: &[(&LocalFile, String)], message: &str) -> Result<String> {
        let mut lines = vec![json!({ "key": "header", "value": { "summary": message, "description": "" } })];
        for (file, digest) in files {
            lines.push(if file.apart {
                let value = json!({ "path": file.name, "algo": "sha256", "oid": digest, "size": file.size });
                json!({ "key": "lfsFile", "value": value })
            } else {
                let bytes = std::fs::read(&file.path).map_err(|e| Error::io(&file.path, e))?;
                let value = json!({ "path": file.name, "content": STANDARD.encode(bytes), "encoding": "base64" });
                json!({ "key": "file", "value": value })
            });
        }
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let content = Content::Json(text.into_bytes().into(), "application/x-ndjson");
        let url = self.api(&format!("/commit/{}", self.revision()));
        // A second commit would say the same, but nothing new.
        let answer = self.send_as("POST", &url, &[], &content, Repeat::IfRefused)?;
        let said: Value = self.read(&self.expect(answer, "commit")?)?;
        match said["commitOid"].as_str() {
            Some(commit) => Ok(printable(commit)),
            None => Err(self.unclear("it does not say which commit it made")),
        }
    }

    /// An address that the Hub names. A mirror may name the Hub's own.
    fn address(&self, href: &str) -> Result<String> {
        const HUB: &str = "https://huggingface.co/";
        match href.strip_prefix(HUB) {
            Some(rest) => Ok(format!("{}/{rest}", self.hub.endpoint)),
            None if href.starts_with("https://") || href.starts_with("http://") => Ok(href.into()),
            None => Err(self.unclear(&format!("it names the address `{}`", printable(href)))),
        }
    }

    /// Sends a request, several times if need be.
    fn send(&self, method: &str, url: &str, headers: &[(&str, String)], content: &Content) -> Result<Answer> {
        self.send_as(method, url, headers, content, Repeat::Always)
    }

    fn send_as(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, String)],
        content: &Content,
        repeat: Repeat,
    ) -> Result<Answer> {
        let (mut pause, mut attempt) = (FIRST_PAUSE, 1);
        loop {
            let again = attempt < ATTEMPTS;
            match self.attempt(method, url, headers, content)? {
                Ok(answer) if again && answer.is_temporary() && repeat.allows(answer.status) => {
                    self.sleep(answer.pause.unwrap_or(pause).min(LONGEST_PAUSE))?;
                }
                Ok(answer) => return Ok(answer),
                Err(Failure::Broken(_)) if again && repeat == Repeat::Always => self.sleep(pause)?,
                Err(Failure::Broken(reason)) => return Err(self.error(&reason, UploadRemedy::TryLater)),
                // Who was silent for so long would be again.
                Err(Failure::Silent(time)) => {
                    return Err(self.error(&format!("no answer within {time:?}"), UploadRemedy::TryLater));
                }
            }
            (pause, attempt) = (2 * pause, attempt + 1);
        }
    }

    fn sleep(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.observer.check()?;
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Sends a request on its own thread, and gives up when nothing moves for the agreed time.
    fn attempt(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, String)],
        content: &Content,
    ) -> Result<Result<Answer, Failure>> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        // The token is for the Hub alone, not for the storage that it names.
        if url.strip_prefix(&self.hub.endpoint).is_some_and(|rest| rest.starts_with('/')) {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        let sent = Arc::new(AtomicU64::new(0));
        let (body, total) = match content.clone() {
            Content::Nothing => (None, 0),
            Content::Json(bytes, kind) => {
                request = request.header("content-type", kind).header("content-length", bytes.len());
                let length = bytes.len() as u64;
                (Some(Counted { from: BodySource::Bytes(bytes, 0), sent: sent.clone() }), length)
            }
            Content::Part(path, start, length) => {
                let mut file = File::open(&path).map_err(|e| Error::io(&path, e))?;
                file.seek(SeekFrom::Start(start)).map_err(|e| Error::io(&path, e))?;
                request = request.header("content-length", length);
                (Some(Counted { from: BodySource::File(file.take(length)), sent: sent.clone() }), length)
            }
        };
        let request = request.body(()).map_err(|e| self.unclear(&format!("`{}`: {e}", printable(url))))?;
        let (agent, (done, result)) = (self.agent.clone(), channel());
        std::thread::spawn(move || {
            let body = body.map_or_else(SendBody::none, SendBody::from_owned_reader);
            let request = Request::from_parts(request.into_parts().0, body);
            let answer = agent.run(request).map_err(|e| e.to_string()).and_then(Answer::of);
            // Who has given up does not listen.
            drop(done.send(answer));
        });
        let (mut seen, mut moved) = (0, Instant::now());
        loop {
            match result.recv_timeout(POLL) {
                Ok(Ok(answer)) => return Ok(Ok(answer)),
                Ok(Err(reason)) => return Ok(Err(Failure::Broken(reason))),
                Err(RecvTimeoutError::Disconnected) => {
                    return Ok(Err(Failure::Broken("the connection broke off".into())));
                }
                Err(RecvTimeoutError::Timeout) => {
                    let now = sent.load(Ordering::Relaxed);
                    if now != seen {
                        (seen, moved) = (now, Instant::now());
                    }
                    if let Content::Part(path, ..) = content {
                        let name = path.file_name().unwrap_or_default().display();
                        self.advance(&format!("uploading {name}"), now, total)?;
                    }
                    self.observer.check()?;
                    if moved.elapsed() >= self.hub.timeout {
                        return Ok(Err(Failure::Silent(self.hub.timeout)));
                    }
                }
            }
        }
    }

    /// The answer, if it is of success.
    fn expect(&self, answer: Answer, what: &str) -> Result<Answer> {
        if answer.is_success() { Ok(answer) } else { Err(self.refused(what, &answer)) }
    }

    fn refused(&self, what: &str, answer: &Answer) -> Error {
        let remedy = match answer.status {
            401 | 403 => UploadRemedy::CheckToken,
            404 => UploadRemedy::CheckRepository,
            _ if answer.is_temporary() => UploadRemedy::TryLater,
            _ => UploadRemedy::CheckRepository,
        };
        self.error(&format!("to {what}, {}", answer.reason()), remedy)
    }

    fn read<T: serde::de::DeserializeOwned>(&self, answer: &Answer) -> Result<T> {
        serde_json::from_slice(&answer.body).map_err(|e| self.unclear(&e.to_string()))
    }

    /// An answer that makes no sense.
    fn unclear(&self, reason: &str) -> Error {
        let (endpoint, id) = (&self.hub.endpoint, self.id);
        Error::Hub(format!(
            "{id} could not be pushed to {endpoint}: its answer is not understood ({reason}); check that HF_ENDPOINT names a Hub"
        ))
    }

    fn error(&self, reason: &str, remedy: UploadRemedy) -> Error {
        let (endpoint, id) = (&self.hub.endpoint, self.id);
        let advice = match remedy {
            UploadRemedy::CheckToken => format!(
                "the token lacks write access to {}: make one that has it at {endpoint}/settings/tokens, and set HF_TOKEN to it",
                id.repository
            ),
            UploadRemedy::CheckRepository => {
                format!("check the name, the revision, and what {endpoint}/{} says", id.repository)
            }
            UploadRemedy::TryLater => "push again later: what has arrived is not sent twice".into(),
        };
        Error::Hub(format!("{id} could not be pushed to {endpoint}: {reason}; {advice}"))
    }
}

/// What the user can do about a push that failed.
enum UploadRemedy {
    CheckToken,
    CheckRepository,
    TryLater,
}

/// What is sent, counted as it is read.
struct Counted {
    from: BodySource,
    sent: Arc<AtomicU64>,
}

enum BodySource {
    Bytes(Arc<[u8]>, usize),
    File(std::io::Take<File>),
}

impl Read for Counted {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let n = match &mut self.from {
            BodySource::Bytes(bytes, at) => {
                let n = (&bytes[*at..]).read(out)?;
                *at += n;
                n
            }
            BodySource::File(file) => file.read(out)?,
        };
        self.sent.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

//! The Hugging Face Hub: names of what is there, the cache of it that this crate shares with Hugging
//! Face's own tools, and data sets. Models are opened by [`formats`](crate::formats).

#[cfg(feature = "hub")]
mod client;
mod dataset;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "hub")]
pub(crate) use client::Client;
pub use dataset::{DATASET_PREFIX, HubDataset};

/// A repository on the Hub: `owner/name`, or `owner/name@revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubId {
    /// `owner/name`.
    pub repository: String,
    /// A branch, tag or commit; `main` unless given.
    pub revision: String,
}

impl HubId {
    /// Reads `owner/name[@revision]`; `None` if `text` is not of that form.
    pub fn parse(text: &str) -> Option<Self> {
        let (repository, revision) = text.split_once('@').unwrap_or((text, "main"));
        let plain = |part: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !part.is_empty() && part.chars().all(allowed) && !part.starts_with(['.', '-'])
        };
        let whole = repository.split('/').count() == 2 && repository.split('/').chain(revision.split('/')).all(plain);
        whole.then(|| Self { repository: repository.into(), revision: revision.into() })
    }
}

impl std::fmt::Display for HubId {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self.revision.as_str() {
            "main" => f.write_str(&self.repository),
            revision => write!(f, "{}@{revision}", self.repository),
        }
    }
}

/// Where the Hub is, and where its files are kept here.
#[derive(Clone)]
pub struct Hub {
    /// The cache, laid out as Hugging Face's own tools do
    /// (`models--owner--name/{blobs,refs,snapshots}`, `datasets--…`).
    pub cache: PathBuf,
    /// The Hub's address, without a slash at its end.
    pub endpoint: String,
    /// What identifies the user, for models that are private or need consent.
    pub token: Option<String>,
    /// Never use the network.
    pub offline: bool,
    /// How long the Hub may be silent, before it answers or while it sends.
    pub timeout: Duration,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        // The token is a secret.
        f.debug_struct("Hub").field("cache", &self.cache).field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Default for Hub {
    /// As the environment says: see [`Hub::from_vars`].
    fn default() -> Self {
        Self::from_vars(|name| std::env::var_os(name))
    }
}

impl Hub {
    /// The Hub as Hugging Face's variables describe it: `HF_HUB_CACHE`, `HF_HOME` and
    /// `XDG_CACHE_HOME` for the cache, `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`,
    /// `HF_HUB_OFFLINE`, and `HF_HUB_DOWNLOAD_TIMEOUT` in seconds.
    pub fn from_vars(get: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name: &str| get(name).filter(|value| !value.is_empty());
        let text = |name: &str| set(name).and_then(|value| value.into_string().ok());
        let path = |name: &str| set(name).map(PathBuf::from);
        let general =
            || path("XDG_CACHE_HOME").unwrap_or_else(|| std::env::home_dir().unwrap_or_default().join(".cache"));
        let home = path("HF_HOME").unwrap_or_else(|| general().join("huggingface"));
        let token_path = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let token = text("HF_TOKEN").or_else(|| std::fs::read_to_string(token_path).ok());
        let seconds = text("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|text| text.parse().ok()).unwrap_or(30);
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        Self {
            cache: path("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub")),
            endpoint: endpoint.trim_end_matches('/').into(),
            token: token.map(|token| token.trim().to_string()).filter(|token| !token.is_empty()),
            offline: text("HF_HUB_OFFLINE").is_some_and(|v| ["1", "on", "yes", "true"].contains(&&*v.to_lowercase())),
            timeout: Duration::from_secs(seconds),
        }
    }

    /// The folder that the cache has for this repository, whole or not.
    pub(crate) fn cached(&self, kind: RepositoryKind, id: &HubId) -> Option<PathBuf> {
        let home = self.home(kind, id);
        let named = std::fs::read_to_string(home.join("refs").join(&id.revision)).ok();
        let commit = named.as_deref().map_or(id.revision.as_str(), str::trim);
        let plain = !commit.is_empty() && commit.bytes().all(|b| b.is_ascii_alphanumeric());
        Some(home.join("snapshots").join(commit)).filter(|folder| plain && folder.is_dir())
    }

    /// The folder of all that the cache has of this repository.
    pub(crate) fn home(&self, kind: RepositoryKind, id: &HubId) -> PathBuf {
        self.cache.join(format!("{}--{}", kind.folder(), id.repository.replace('/', "--")))
    }
}

/// What a repository holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RepositoryKind {
    Model,
    Dataset,
}

impl RepositoryKind {
    /// The beginning of its folder's name in the cache.
    fn folder(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }

    /// What messages call it.
    #[cfg(feature = "hub")]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Dataset => "data set",
        }
    }
}

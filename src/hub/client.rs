//! Downloads into the cache, never waiting for a silent server longer than agreed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use indicatif::{ProgressBar, ProgressStyle};

use super::{Hub, HubId, RepositoryKind};
use crate::files::{create_folder, write_atomic};
use crate::{Error, Result};

/// The downloads of one repository.
pub(crate) struct Client<'a> {
    hub: &'a Hub,
    kind: RepositoryKind,
    id: &'a HubId,
    api: Api,
    home: PathBuf,
    progress: bool,
}

impl<'a> Client<'a> {
    /// Creates the cache if necessary. `progress` shows bars on standard error.
    pub(crate) fn new(hub: &'a Hub, kind: RepositoryKind, id: &'a HubId, progress: bool) -> Result<Self> {
        let cache = std::path::absolute(&hub.cache).map_err(|e| Error::io(&hub.cache, e))?;
        create_folder(&cache)?;
        let home = Hub { cache: cache.clone(), ..hub.clone() }.home(kind, id);
        let api =
            ApiBuilder::from_cache(Cache::new(cache)).with_endpoint(hub.endpoint.clone()).with_token(hub.token.clone());
        let api = api
            .with_progress(false)
            .build()
            .map_err(|e| download_error(hub, kind, id, &home, &e.to_string(), Remedy::of(&e)))?;
        Ok(Self { hub, kind, id, api, home, progress })
    }

    /// The folder of all that the cache has of the repository.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// Remembers that the revision is this commit. Only when its folder is finished.
    pub(crate) fn remember(&self, commit: &str) -> Result<()> {
        if self.id.revision == commit {
            return Ok(());
        }
        let name = self.home.join("refs").join(&self.id.revision);
        create_folder(name.parent().unwrap_or(&self.home))?;
        write_atomic(&name, |out| out.write_all(commit.as_bytes()).map_err(|e| Error::io(&name, e)))
    }

    fn repo(&self, revision: &str) -> Repo {
        let kind = match self.kind {
            RepositoryKind::Model => RepoType::Model,
            RepositoryKind::Dataset => RepoType::Dataset,
        };
        Repo::with_revision(self.id.repository.clone(), kind, revision.into())
    }

    /// The commit of the revision, and the names of its files.
    pub(crate) fn list(&self) -> Result<(String, Vec<String>)> {
        let repo = self.api.repo(self.repo(&self.id.revision));
        let info = self.bounded(move |_| repo.info())?;
        let plain = !info.sha.is_empty() && info.sha.bytes().all(|b| b.is_ascii_alphanumeric());
        if !plain {
            return Err(self.error(&format!("it answered with the commit `{}`", info.sha), Remedy::TryLater));
        }
        Ok((info.sha, info.siblings.into_iter().map(|file| file.rfilename).collect()))
    }

    /// Downloads the file `name` of `commit` unless it is in `snapshot` already.
    pub(crate) fn file(&self, commit: &str, snapshot: &Path, name: &str) -> Result<()> {
        let path = snapshot.join(name);
        if path.exists() {
            return Ok(());
        }
        if path.symlink_metadata().is_ok() {
            // A link whose file is gone would block the new one.
            std::fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
        }
        let (repo, name, progress) = (self.api.repo(self.repo(commit)), name.to_string(), self.progress);
        self.bounded(move |beat| {
            let bar = if progress { bar() } else { ProgressBar::hidden() };
            repo.download_with_progress(&name, Watched { beat, bar })
        })?;
        Ok(())
    }

    /// Runs `work` on its own thread, and gives up when it has neither ended nor counted up
    /// `beat` for the agreed time. The client knows no time limits; the thread of a request that is
    /// given up ends with its connection or with the process.
    fn bounded<T: Send + 'static>(
        &self,
        work: impl FnOnce(Arc<AtomicU64>) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T> {
        let beat = Arc::new(AtomicU64::new(0));
        let (done, result) = channel();
        let worker = beat.clone();
        std::thread::spawn(move || done.send(work(worker)));
        let mut last = 0;
        let timeout = self.hub.timeout.max(Duration::from_millis(1));
        loop {
            match result.recv_timeout(timeout) {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => return Err(self.error(&error.to_string(), Remedy::of(&error))),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.error("the download broke off", Remedy::TryLater));
                }
                Err(RecvTimeoutError::Timeout) => match beat.load(Ordering::Relaxed) {
                    now if now == last => {
                        return Err(self.error(&format!("no answer within {timeout:?}"), Remedy::TryLater));
                    }
                    now => last = now,
                },
            }
        }
    }

    fn error(&self, reason: &str, remedy: Remedy) -> Error {
        download_error(self.hub, self.kind, self.id, &self.home, reason, remedy)
    }
}

/// What the user can do about a failed download.
enum Remedy {
    CheckAccess,
    RemoveParts,
    TryLater,
}

impl Remedy {
    fn of(error: &ApiError) -> Self {
        match error {
            ApiError::RequestError(request) => match **request {
                ureq::Error::StatusCode(401 | 403 | 404) => Self::CheckAccess,
                ureq::Error::StatusCode(416) => Self::RemoveParts,
                _ => Self::TryLater,
            },
            ApiError::InvalidResume => Self::RemoveParts,
            ApiError::TooManyRetries(last) => Self::of(last),
            _ => Self::TryLater,
        }
    }
}

fn download_error(hub: &Hub, kind: RepositoryKind, id: &HubId, home: &Path, reason: &str, remedy: Remedy) -> Error {
    let (endpoint, repository, what) = (&hub.endpoint, &id.repository, kind.name());
    let option = if kind == RepositoryKind::Dataset { " --repo-type dataset" } else { "" };
    let advice = match remedy {
        Remedy::CheckAccess => {
            let token = if hub.token.is_some() { "HF_TOKEN belongs to someone with access" } else { "HF_TOKEN is set" };
            format!(
                "there is no such {what} or revision, or it is not open to everyone: check the name, and that {token}"
            )
        }
        Remedy::RemoveParts => {
            format!(
                "an earlier download is damaged: remove the .part files in {} and try again",
                home.join("blobs").display()
            )
        }
        Remedy::TryLater => format!(
            "try again later (what has arrived is kept), set HF_ENDPOINT to a mirror, or, without network, run `hf download \
             {repository}{option}` on another machine and give the folder of the copy"
        ),
    };
    let named = match kind {
        RepositoryKind::Model => format!("{id} is no file or folder, and could not be fetched as a model from"),
        RepositoryKind::Dataset => format!("{id}, a data set, could not be fetched from"),
    };
    Error::Hub(format!("{named} the Hugging Face Hub ({endpoint}): {reason}; {advice}"))
}

/// A bar that also counts the arrivals of bytes.
struct Watched {
    beat: Arc<AtomicU64>,
    bar: ProgressBar,
}

impl Progress for Watched {
    fn init(&mut self, size: usize, filename: &str) {
        self.beat.fetch_add(1, Ordering::Relaxed);
        self.bar.set_length(size as u64);
        self.bar.set_message(filename.to_string());
    }

    fn update(&mut self, size: usize) {
        self.beat.fetch_add(1, Ordering::Relaxed);
        self.bar.inc(size as u64);
    }

    fn finish(&mut self) {
        self.bar.finish();
    }
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

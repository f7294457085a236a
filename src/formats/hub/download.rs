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

use super::{Hub, HubId};
use crate::files::{ShardedSafetensors, create_folder, write_atomic};
use crate::formats::names::{BEEG_CONFIG, CONFIG, INDEX, PYTORCH, TOKENIZER, TORCH, WEIGHTS};
use crate::{Error, Result};

/// Downloads what of the model `id` is not in the cache yet, and returns the folder with all of it.
pub(super) fn download(hub: &Hub, id: &HubId, progress: bool) -> Result<PathBuf> {
    let cache = std::path::absolute(&hub.cache).map_err(|e| Error::io(&hub.cache, e))?;
    create_folder(&cache)?;
    let home = Hub { cache: cache.clone(), ..hub.clone() }.home(id);
    let blobs = home.join("blobs");
    let api =
        ApiBuilder::from_cache(Cache::new(cache)).with_endpoint(hub.endpoint.clone()).with_token(hub.token.clone());
    let api = api
        .with_progress(false)
        .build()
        .map_err(|e| download_error(hub, id, &blobs, &e.to_string(), Remedy::of(&e)))?;
    let download = ModelDownload { hub, id, api, blobs, progress };

    let (commit, offered) = download.list()?;
    let snapshot = home.join("snapshots").join(&commit);
    let offers = |name: &str| offered.iter().any(|file| file == name);
    let fetch = |name: &str| download.file(&commit, &snapshot, name);

    let configs: Vec<_> = [CONFIG, BEEG_CONFIG].into_iter().filter(|name| offers(name)).collect();
    let weights = [WEIGHTS, INDEX, TORCH, PYTORCH].into_iter().find(|name| offers(name));
    let (false, Some(weights)) = (configs.is_empty(), weights) else {
        return Err(Error::Hub(format!(
            "{id} on {} is not such a model: it needs {CONFIG} or {BEEG_CONFIG}, and {WEIGHTS}, {INDEX}, {TORCH} or {PYTORCH}",
            hub.endpoint
        )));
    };
    configs.into_iter().try_for_each(fetch)?;
    if offers(TOKENIZER) {
        fetch(TOKENIZER)?;
    } else {
        let marker = hub.no_tokenizer(&snapshot);
        create_folder(marker.parent().unwrap_or(&home))?;
        write_atomic(marker, |_| Ok(()))?;
    }
    fetch(weights)?;
    if weights == INDEX {
        ShardedSafetensors::files(snapshot.join(INDEX))?.iter().try_for_each(|shard| fetch(shard))?;
    }
    if id.revision != commit {
        // Only now, so that a revision never points at a folder that was not finished.
        let name = home.join("refs").join(&id.revision);
        create_folder(name.parent().unwrap_or(&home))?;
        write_atomic(&name, |out| out.write_all(commit.as_bytes()).map_err(|e| Error::io(&name, e)))?;
    }
    Ok(snapshot)
}

/// One model's downloads.
struct ModelDownload<'a> {
    hub: &'a Hub,
    id: &'a HubId,
    api: Api,
    blobs: PathBuf,
    progress: bool,
}

impl ModelDownload<'_> {
    /// The commit of the revision, and the names of its files.
    fn list(&self) -> Result<(String, Vec<String>)> {
        let HubId { repository, revision } = self.id.clone();
        let repo = self.api.repo(Repo::with_revision(repository, RepoType::Model, revision));
        let info = self.bounded(move |_| repo.info())?;
        let plain = !info.sha.is_empty() && info.sha.bytes().all(|b| b.is_ascii_alphanumeric());
        if !plain {
            return Err(self.error(&format!("it answered with the commit `{}`", info.sha), Remedy::TryLater));
        }
        Ok((info.sha, info.siblings.into_iter().map(|file| file.rfilename).collect()))
    }

    /// Downloads the file `name` of `commit` unless it is in `snapshot` already.
    fn file(&self, commit: &str, snapshot: &Path, name: &str) -> Result<()> {
        let path = snapshot.join(name);
        if path.exists() {
            return Ok(());
        }
        if path.symlink_metadata().is_ok() {
            // A link whose file is gone would block the new one.
            std::fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
        }
        let repo = Repo::with_revision(self.id.repository.clone(), RepoType::Model, commit.into());
        let (repo, name, progress) = (self.api.repo(repo), name.to_string(), self.progress);
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
        download_error(self.hub, self.id, &self.blobs, reason, remedy)
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

fn download_error(hub: &Hub, id: &HubId, blobs: &Path, reason: &str, remedy: Remedy) -> Error {
    let (endpoint, repository) = (&hub.endpoint, &id.repository);
    let advice = match remedy {
        Remedy::CheckAccess => {
            let token = if hub.token.is_some() { "HF_TOKEN belongs to someone with access" } else { "HF_TOKEN is set" };
            format!(
                "there is no such model or revision, or it is not open to everyone: check the name, and that {token}"
            )
        }
        Remedy::RemoveParts => {
            format!("an earlier download is damaged: remove the .part files in {} and try again", blobs.display())
        }
        Remedy::TryLater => format!(
            "try again later (what has arrived is kept), set HF_ENDPOINT to a mirror, or, without network, run `hf download \
             {repository}` on another machine and give the folder of the copy"
        ),
    };
    Error::Hub(format!(
        "{id} is no file or folder, and as a model of the Hugging Face Hub ({endpoint}) it could not be fetched: {reason}; \
         {advice}"
    ))
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

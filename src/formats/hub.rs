//! Models on the Hugging Face Hub.

#[cfg(feature = "hub")]
mod download;
#[cfg(feature = "hub")]
mod upload;

use std::path::{Path, PathBuf};

use super::names::{BEEG_CONFIG, CONFIG, INDEX, PYTORCH, TOKENIZER, TORCH, WEIGHTS};
use crate::files::ShardedSafetensors;
use crate::hub::RepositoryKind;
pub use crate::hub::{Hub, HubId};
use crate::observer::Observer;
use crate::text::tokenizer::find_in;
use crate::{Error, Result};

/// What a push left on the Hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// The files of the folder, by name.
    pub files: Vec<UploadedFile>,
    /// The commit; none if the Hub had all of the files already.
    pub commit: Option<String>,
}

/// A file of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadedFile {
    /// Its name in the repository.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Whether the commit holds it; otherwise the Hub had it already.
    pub sent: bool,
}

impl Hub {
    /// The folder of the model `id`, with its configuration, its weights and, if it has one, its
    /// tokenizer. Files in the cache are used without a question to the Hub; others are
    /// downloaded, the safetensors in preference to other weights. `progress` shows a bar on
    /// standard error.
    pub(crate) fn fetch(&self, id: &HubId, offline: bool, progress: bool) -> Result<PathBuf> {
        let cached = self.cached(RepositoryKind::Model, id);
        let usable = cached.as_deref().filter(|folder| missing(folder).is_none());
        if let Some(folder) = usable
            && (offline || self.offline || find_in(folder).is_some() || self.no_tokenizer(folder).exists())
        {
            return Ok(folder.to_path_buf());
        }
        if offline || self.offline {
            let found = match cached.as_deref().and_then(missing) {
                Some(lacking) => format!("lacks {lacking} in the cache"),
                None => "is not in the cache".into(),
            };
            let cache = self.cache.display();
            return Err(Error::Hub(format!(
                "{id} is no file or folder, and as a model of the Hugging Face Hub it {found} ({cache}), while downloads are \
                 switched off: open it once with network, or give the folder of a copy"
            )));
        }
        match (self.download(id, progress), usable) {
            (Err(error), Some(folder)) => {
                tracing::warn!("continuing without a tokenizer: {error}");
                Ok(folder.to_path_buf())
            }
            (downloaded, _) => downloaded,
        }
    }

    /// Pushes all files of `folder` to the revision of the model `id`, as one commit with `message`:
    /// all of them or, when it is cut short, none. Creates the repository (`private`: visible to its
    /// owner only) and the branch unless they exist. Files that the Hub has already are not sent.
    /// No file that the Hub stores apart is in memory as a whole.
    ///
    /// # Errors
    /// [`Error::Hub`] without a token or with one that may not write, if a repository that is to be
    /// private is public, if the Hub refuses something, cannot be reached, or is silent for longer
    /// than [`Hub::timeout`]; [`Error::Io`] naming a file that cannot be read.
    pub fn upload(
        &self,
        id: &HubId,
        folder: &Path,
        private: bool,
        message: &str,
        observer: Observer,
    ) -> Result<Uploaded> {
        if self.offline {
            return Err(Error::Hub(format!("{id} cannot be pushed while HF_HUB_OFFLINE forbids the network")));
        }
        #[cfg(feature = "hub")]
        return upload::upload(self, id, folder, private, message, observer);
        #[cfg(not(feature = "hub"))]
        {
            let _ = (private, message, observer);
            Err(Error::Hub(format!(
                "this program was built without access to the Hub. Build it with `--features hub`, or push with `hf upload {} \
                 {}`",
                id.repository,
                folder.display()
            )))
        }
    }

    #[cfg(not(feature = "hub"))]
    fn download(&self, id: &HubId, _progress: bool) -> Result<PathBuf> {
        Err(Error::Hub(format!(
            "{id} is no file or folder; it may be a model of the Hugging Face Hub, but this program was built without \
             downloads. Build it with `--features hub`, or fetch the model with `hf download {}` and try again",
            id.repository
        )))
    }

    #[cfg(feature = "hub")]
    fn download(&self, id: &HubId, progress: bool) -> Result<PathBuf> {
        download::download(self, id, progress)
    }

    /// The file by which Hugging Face's tools, too, remember that the model in `snapshot` has no
    /// tokenizer.
    fn no_tokenizer(&self, snapshot: &Path) -> PathBuf {
        let home = snapshot.parent().and_then(Path::parent).unwrap_or(snapshot);
        home.join(".no_exist").join(snapshot.file_name().unwrap_or_default()).join(TOKENIZER)
    }
}

/// What a folder of the cache lacks to be a model; links that lead nowhere are lacking.
fn missing(folder: &Path) -> Option<String> {
    let has = |name: &str| folder.join(name).exists();
    if !has(CONFIG) && !has(BEEG_CONFIG) {
        return Some(CONFIG.into());
    }
    if has(WEIGHTS) {
        return None;
    }
    if has(INDEX) {
        // Opening an index that cannot be read returns an error later.
        return ShardedSafetensors::files(folder.join(INDEX)).unwrap_or_default().into_iter().find(|file| !has(file));
    }
    (!has(TORCH) && !has(PYTORCH)).then(|| WEIGHTS.into())
}

//! Data sets of the Hub, as the Parquet files that it makes of every data set.

use std::path::PathBuf;

#[cfg(feature = "hub")]
use super::Client;
use super::{Hub, HubId, RepositoryKind};
#[cfg(feature = "hub")]
use crate::files::{create_folder, write_atomic};
use crate::{Error, Result};

/// What names of data sets begin with where files are named.
pub const DATASET_PREFIX: &str = "hub:";

/// Where the Hub has the Parquet files of a data set.
const PARQUET_REVISION: &str = "refs/convert/parquet";

/// The Parquet files of one split of a data set.
#[derive(Debug, Clone)]
pub struct HubDataset {
    hub: Hub,
    id: HubId,
    commit: String,
    /// Their names in the repository, such as `default/train/0000.parquet`.
    files: Vec<String>,
}

impl HubDataset {
    /// Lists the files of `OWNER/NAME[@REVISION][:CONFIGURATION[/SPLIT]]`. Without a revision they
    /// are those that the Hub makes of the newest one; without a configuration those of `default`,
    /// or of the only one; without a split those of `train`. What the cache has is used without a
    /// question to the Hub only where the network is switched off.
    ///
    /// # Errors
    /// Returns [`Error::Hub`] if it cannot be listed, or has no such part.
    pub fn open(hub: &Hub, name: &str) -> Result<Self> {
        let (repository, part) = name.split_once(':').map_or((name, None), |(name, part)| (name, Some(part)));
        let wrong = || {
            Error::Hub(format!(
                "`{DATASET_PREFIX}{name}` names no data set: it is {DATASET_PREFIX}OWNER/NAME, with @REVISION and \
                 :CONFIGURATION/SPLIT after it if wanted"
            ))
        };
        let mut id = HubId::parse(repository).ok_or_else(wrong)?;
        if !repository.contains('@') {
            id.revision = PARQUET_REVISION.into();
        }
        let (commit, mut all) = if hub.offline { cached(hub, &id)? } else { list(hub, &id)? };
        all.retain(|file| file.ends_with(".parquet") && !file.split('/').any(|part| part.is_empty() || part == ".."));
        all.sort();
        let files = chosen(&all, part).map_err(|message| Error::Hub(format!("{DATASET_PREFIX}{name}: {message}")))?;
        Ok(Self { hub: hub.clone(), id, commit, files })
    }

    /// The number of files.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// What identifies the contents of a file: the commit and the name.
    pub(crate) fn identity(&self, number: usize) -> String {
        format!("{} {} {}", self.id.repository, self.commit, self.files[number])
    }

    /// A file in the cache, downloaded if it is not there.
    ///
    /// # Errors
    /// Returns [`Error::Hub`] if it cannot be fetched.
    pub fn fetch(&self, number: usize) -> Result<PathBuf> {
        let name = self.files.get(number).ok_or_else(|| Error::Hub(format!("{} has no file {number}", self.id)))?;
        let snapshot = self.hub.home(RepositoryKind::Dataset, &self.id).join("snapshots").join(&self.commit);
        let path = snapshot.join(name);
        if path.exists() {
            return Ok(path);
        }
        if self.hub.offline {
            return Err(Error::Hub(format!(
                "{} lacks {name} in the cache ({}), while downloads are switched off",
                self.id,
                self.hub.cache.display()
            )));
        }
        self.download(&snapshot, name)?;
        Ok(path)
    }

    #[cfg(feature = "hub")]
    fn download(&self, snapshot: &std::path::Path, name: &str) -> Result<()> {
        let client = Client::new(&self.hub, RepositoryKind::Dataset, &self.id, false)?;
        client.file(&self.commit, snapshot, name)?;
        client.remember(&self.commit)
    }

    #[cfg(not(feature = "hub"))]
    fn download(&self, _: &std::path::Path, _: &str) -> Result<()> {
        Err(without_downloads(&self.id))
    }
}

/// The files of a part: of a configuration and split, which are the folders that they are in.
fn chosen(all: &[String], part: Option<&str>) -> Result<Vec<String>, String> {
    let (configuration, split) = match part.map(|part| part.split_once('/').unwrap_or((part, "train"))) {
        Some((configuration, split)) => (configuration.to_string(), split),
        None => {
            let mut names: Vec<&str> = all.iter().filter_map(|file| file.split('/').next()).collect();
            names.dedup();
            match (names.contains(&"default"), &names[..]) {
                (true, _) => ("default".to_string(), "train"),
                (false, [only]) => ((*only).to_string(), "train"),
                (false, _) => (String::new(), "train"),
            }
        }
    };
    let prefix = format!("{configuration}/{split}/");
    let files: Vec<String> = all.iter().filter(|file| file.starts_with(&prefix)).cloned().collect();
    if !files.is_empty() {
        return Ok(files);
    }
    let mut parts: Vec<&str> = all.iter().filter_map(|file| file.rsplit_once('/')).map(|(part, _)| part).collect();
    parts.dedup();
    Err(match parts.is_empty() {
        true => "the Hub has no Parquet files of it: fetch its own files and name those".into(),
        false => format!("it has the parts {}; name one after a colon", parts.join(", ")),
    })
}

/// The commit and the files that the cache has.
fn cached(hub: &Hub, id: &HubId) -> Result<(String, Vec<String>)> {
    let lacking = || {
        Error::Hub(format!(
            "the data set {id} is not in the cache ({}), while downloads are switched off: read it once with network",
            hub.cache.display()
        ))
    };
    let snapshot = hub.cached(RepositoryKind::Dataset, id).ok_or_else(lacking)?;
    let commit = snapshot.file_name().and_then(|name| name.to_str()).ok_or_else(lacking)?.to_string();
    if let Ok(text) = std::fs::read_to_string(listing(hub, id, &commit)) {
        return Ok((commit, text.lines().map(str::to_string).collect()));
    }
    let (mut files, mut pending) = (Vec::new(), vec![snapshot.clone()]);
    while let Some(folder) = pending.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|source| Error::io(&folder, source))?;
        for entry in entries.filter_map(std::result::Result::ok) {
            let path = entry.path();
            // A link whose file is gone is lacking.
            let Ok(metadata) = std::fs::metadata(&path) else { continue };
            let relative = path.strip_prefix(&snapshot).ok().and_then(|path| path.to_str());
            match (metadata.is_dir(), relative) {
                (true, _) => pending.push(path),
                (false, Some(name)) => files.push(name.replace(std::path::MAIN_SEPARATOR, "/")),
                (false, None) => {}
            }
        }
    }
    Ok((commit, files))
}

/// The file with the names of a commit's files: a cache may have some of them only.
fn listing(hub: &Hub, id: &HubId, commit: &str) -> PathBuf {
    hub.home(RepositoryKind::Dataset, id).join(".gossamer").join(commit)
}

#[cfg(feature = "hub")]
fn list(hub: &Hub, id: &HubId) -> Result<(String, Vec<String>)> {
    let (commit, files) = Client::new(hub, RepositoryKind::Dataset, id, false)?.list()?;
    let path = listing(hub, id, &commit);
    create_folder(path.parent().unwrap_or(&hub.cache))?;
    write_atomic(&path, |out| out.write_all(files.join("\n").as_bytes()).map_err(|source| Error::io(&path, source)))?;
    Ok((commit, files))
}

#[cfg(not(feature = "hub"))]
fn list(_: &Hub, id: &HubId) -> Result<(String, Vec<String>)> {
    Err(without_downloads(id))
}

#[cfg(not(feature = "hub"))]
fn without_downloads(id: &HubId) -> Error {
    Error::Hub(format!(
        "{id} is a data set of the Hugging Face Hub, but this program was built without downloads. Build it with \
         `--features hub`, or fetch it with `hf download --repo-type dataset {}` and name its files",
        id.repository
    ))
}

//! A model pushed to the Hugging Face Hub, with a card made from its run.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::model_card::model_card;
use crate::files::{create_folder, write_atomic};
use crate::formats::hub::{HubId, Uploaded, UploadedFile};
use crate::formats::{ConvertOptions, Hub, ModelFiles, convert};
use crate::observer::{Observer, Stage};
use crate::report::{Column, Report, Table};
use crate::train::memory::human_bytes;
use crate::{Error, Result};

/// The model's description on the Hub.
const CARD: &str = "README.md";

/// What is to be pushed where.
#[derive(Clone, Debug)]
pub struct PushRequest {
    /// The repository, and its branch.
    pub id: HubId,
    /// The Hub.
    pub hub: Hub,
    /// Whether a repository that does not exist yet is visible to its owner only. One that exists
    /// must be so then.
    pub private: bool,
    /// The first line of the commit.
    pub message: String,
    /// The license that the card names, by the Hub's name for it.
    pub license: Option<String>,
    /// Whether nothing is sent.
    pub dry_run: bool,
}

/// What a push did, or would do.
#[derive(Clone, Debug, Serialize)]
pub struct PushResult {
    /// The repository.
    pub repository: String,
    /// Its branch.
    pub revision: String,
    /// Where it can be looked at.
    pub url: String,
    /// The commit; none if nothing was sent.
    pub commit: Option<String>,
    /// Whether nothing was to be sent.
    pub dry_run: bool,
    /// The files.
    pub files: Vec<PushedFile>,
    /// The text of the card.
    pub card: String,
}

/// A file of a push.
#[derive(Clone, Debug, Serialize)]
pub struct PushedFile {
    /// Its name in the repository.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Whether it was sent. What the Hub has already is not.
    pub sent: bool,
}

/// Pushes what [`convert()`] writes of `files`, and a card.
///
/// # Errors
/// Those of [`convert()`] and [`Hub::upload`], and of reading the run that the model is of;
/// [`Error::Config`] for a license that is no name.
pub fn push(files: &ModelFiles, request: &PushRequest, observer: Observer) -> Result<PushResult> {
    let PushRequest { id, hub, license, .. } = request;
    if let Some(license) = license.as_deref().filter(|license| !is_license(license)) {
        let message = format!("`{license}` is no name of a license, such as apache-2.0, mit or other");
        return Err(Error::config("license", message));
    }
    let workspace = Workspace::new()?;
    let folder = workspace.0.join("model");
    observer.advance(&Stage { name: "converting", done: 0, total: None, unit: "files" })?;
    convert(files, &folder, ConvertOptions::default())?;
    let card = model_card(files, &folder, &id.repository, license.as_deref())?;
    let path = folder.join(CARD);
    write_atomic(&path, |out| out.write_all(card.as_bytes()).map_err(|e| Error::io(&path, e)))?;
    let Uploaded { files, commit } = match request.dry_run {
        true => Uploaded { files: listed(&folder)?, commit: None },
        false => hub.upload(id, &folder, request.private, &request.message, observer)?,
    };
    let pushed = |UploadedFile { name, bytes, sent }| PushedFile { name, bytes, sent };
    Ok(PushResult {
        repository: id.repository.clone(),
        revision: id.revision.clone(),
        url: format!("{}/{}", hub.endpoint, id.repository),
        commit,
        dry_run: request.dry_run,
        files: files.into_iter().map(pushed).collect(),
        card,
    })
}

impl PushResult {
    /// The result as text and JSON; of a dry run with the card.
    ///
    /// # Errors
    /// Those of [`Report::of`].
    pub fn report(&self) -> Result<Report> {
        let mut table = Table::new("files", [Column::text("file"), Column::text("size"), Column::text("")]);
        for file in &self.files {
            let state = match (self.dry_run, file.sent) {
                (true, _) => "would be sent, unless it is there",
                (_, true) => "sent",
                (_, false) => "was there",
            };
            table.push([file.name.as_str().into(), human_bytes(file.bytes).into(), state.into()]);
        }
        let note = match &self.commit {
            Some(commit) => format!("{} at {}, commit {commit}", self.url, self.revision),
            None if self.dry_run => format!("{} at {}: nothing is sent", self.url, self.revision),
            None => format!("{} at {}: nothing is new, no commit", self.url, self.revision),
        };
        let report = Report::of(self)?.note(note).table(table);
        Ok(if self.dry_run { report.paragraph(self.card.clone()) } else { report })
    }
}

/// Whether a text may be the Hub's name of a license.
fn is_license(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._+".contains(c))
}

/// The files of a folder without folders in it, by name.
fn listed(folder: &Path) -> Result<Vec<UploadedFile>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let entry = entry.map_err(|e| Error::io(folder, e))?;
        let bytes = entry.metadata().map_err(|e| Error::io(entry.path(), e))?.len();
        files.push(UploadedFile { name: entry.file_name().display().to_string(), bytes, sent: false });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// A temporary folder of this process, which only its user can read, and which goes with it.
struct Workspace(PathBuf);

impl Workspace {
    fn new() -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let above = std::env::temp_dir();
        create_folder(&above)?;
        loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = above.join(format!("gossamer-push-{}-{number}", std::process::id()));
            let mut builder = std::fs::DirBuilder::new();
            #[cfg(unix)]
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            match builder.create(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                created => return created.map(|()| Self(path.clone())).map_err(|e| Error::io(path, e)),
            }
        }
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // What cannot be removed is left to the system, which empties the folder.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

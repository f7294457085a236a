//! Compiled kernels on the disk, so that a driver which can export them (as those of Vulkan) need
//! not compile them in every run.
//!
//! A file that cannot be read, is damaged, or is another version's or driver's counts as none; one
//! that cannot be written is given up without an error.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::error::Error;
use crate::files::{create_folder, write_atomic};

/// The first line of the file. Another version has other kernels; to keep them, too, would make the
/// file grow with every version.
const MAGIC: &str = concat!("kernels of gossamer ", env!("CARGO_PKG_VERSION"), "\n");

/// Most bytes: kernels take a few MiB. A longer file is replaced.
const MAX_BYTES: usize = 1 << 28;

/// The cache folder: the one that `GOSSAMER_CACHE` names, none if that is empty, otherwise the
/// user's.
pub(super) fn folder(get: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(named) = get("GOSSAMER_CACHE") {
        return Some(PathBuf::from(named)).filter(|folder| !folder.as_os_str().is_empty());
    }
    // The rules of XDG: paths that are not absolute do not count.
    let absolute = |name: &str| get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || absolute("HOME").or_else(std::env::home_dir).filter(|path| path.is_absolute());
    let user = absolute("XDG_CACHE_HOME").or_else(|| match std::env::consts::OS {
        "windows" => absolute("LOCALAPPDATA"),
        "macos" => home().map(|home| home.join("Library/Caches")),
        _ => home().map(|home| home.join(".cache")),
    })?;
    Some(user.join("gossamer"))
}

/// The driver's cache of compiled kernels. When dropped, it is written if its contents changed.
pub(super) struct Compiled {
    raw: wgpu::PipelineCache,
    path: PathBuf,
    /// Of the file's contents.
    checksum: Option<u32>,
}

impl Compiled {
    /// The cache with what `folder` holds for this adapter; nothing if the backend has no such
    /// cache.
    pub(super) fn open(device: &wgpu::Device, info: &wgpu::AdapterInfo, folder: &Path) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let path = folder.join(wgpu::util::pipeline_cache_key(info)?);
        let kept = read(&path);
        let checksum = kept.as_deref().map(crc32c::crc32c);
        // wgpu returns an error for another adapter's data, and ignores another driver's.
        let raw = create(device, kept.as_deref()).or_else(|| create(device, None))?;
        Some(Self { raw, path, checksum })
    }

    /// For the descriptors of pipelines.
    pub(super) fn raw(&self) -> &wgpu::PipelineCache {
        &self.raw
    }
}

impl Drop for Compiled {
    fn drop(&mut self) {
        let Some(data) = self.raw.get_data().filter(|data| data.len() <= MAX_BYTES) else { return };
        let checksum = crc32c::crc32c(&data);
        if self.checksum == Some(checksum) {
            return;
        }
        if let Err(error) = write(&self.path, checksum, &data) {
            tracing::debug!("compiled kernels are not kept: {error}");
        }
    }
}

fn create(device: &wgpu::Device, data: Option<&[u8]>) -> Option<wgpu::PipelineCache> {
    let descriptor = wgpu::PipelineCacheDescriptor { label: Some("kernels"), data, fallback: true };
    let scopes =
        [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation].map(|filter| device.push_error_scope(filter));
    // SAFETY: the data was returned by `get_data` to a program of this version, as the first line
    // of the file says, and has not changed since, as its checksum says: `read` checks both. wgpu
    // checks the adapter, and wgpu and the driver check the driver's version. This does not protect
    // against a forged file, for which an attacker must be able to write to the user's folders.
    // Tests: those in tests/device.rs that damage and exchange the file.
    let raw = unsafe { device.create_pipeline_cache(&descriptor) };
    let mut failed = false;
    for scope in scopes.into_iter().rev() {
        failed |= pollster::block_on(scope.pop()).is_some();
    }
    (!failed).then_some(raw)
}

/// What the file holds, if it is whole and of this version.
fn read(path: &Path) -> Option<Vec<u8>> {
    let about = fs::metadata(path).ok()?;
    if !about.is_file() || about.len() > MAX_BYTES as u64 {
        return None;
    }
    let bytes = fs::read(path).ok()?;
    let (checksum, data) = bytes.strip_prefix(MAGIC.as_bytes())?.split_first_chunk()?;
    (crc32c::crc32c(data) == u32::from_le_bytes(*checksum)).then(|| data.to_vec())
}

fn write(path: &Path, checksum: u32, data: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        create_folder(folder)?;
    }
    write_atomic(path, |out| {
        [MAGIC.as_bytes(), &checksum.to_le_bytes(), data]
            .iter()
            .try_for_each(|part| out.write_all(part).map_err(|e| Error::io(path, e)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_the_one_that_is_named_or_the_users() {
        let with = |set: &[(&str, &str)]| {
            folder(|name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value)))
        };
        let root = if cfg!(windows) { "C:\\" } else { "/" };
        let at = |path: &str| format!("{root}{path}");
        let (a, b) = (at("a"), at("b"));
        assert_eq!(with(&[("GOSSAMER_CACHE", "x/y"), ("XDG_CACHE_HOME", &a)]), Some("x/y".into()));
        assert_eq!(with(&[("GOSSAMER_CACHE", ""), ("XDG_CACHE_HOME", &a)]), None);
        assert_eq!(with(&[("XDG_CACHE_HOME", &a), ("HOME", &b)]), Some(Path::new(&a).join("gossamer")));
        let users = match std::env::consts::OS {
            "windows" => Path::new(&b).join("gossamer"),
            "macos" => Path::new(&b).join("Library/Caches/gossamer"),
            _ => Path::new(&b).join(".cache/gossamer"),
        };
        for relative in ["", "a"] {
            let set = [("XDG_CACHE_HOME", relative), ("HOME", &b), ("LOCALAPPDATA", &b)];
            assert_eq!(with(&set).as_ref(), Some(&users));
        }
    }
}

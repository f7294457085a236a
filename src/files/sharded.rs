//! A model in several safetensors files, with an index of the tensors in each.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};

use super::{HostTensor, SafetensorsFile, TensorInfo, TensorSource, read_unmarked};
use crate::error::{Error, Result};

/// The part of `model.safetensors.index.json` that is read.
#[derive(Deserialize)]
struct Index {
    weight_map: Pairs,
}

/// All pairs of a JSON object of strings, including pairs with equal keys.
struct Pairs(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Pairs;

            fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
                out.write_str("an object from tensor names to file names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// Several safetensors files next to an index (`model.safetensors.index.json`), each mapped as a
/// [`SafetensorsFile`].
pub struct ShardedSafetensors {
    index: PathBuf,
    shards: Vec<SafetensorsFile>,
    entries: BTreeMap<String, TensorInfo>,
    /// The shard of each tensor.
    shard_numbers: BTreeMap<String, usize>,
}

impl ShardedSafetensors {
    /// Opens all shards that the index at `path` names; reads no numbers. Shards are next to the
    /// index: their names are plain file names.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the index cannot be read, and [`Error::File`] if it is no index,
    /// names a tensor twice or a file outside its folder, if a shard is missing, damaged or lacks a
    /// tensor, or if two shards hold the same tensor.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let error = |message: String| Error::file(path, message);
        let names = shard_of_each(path)?;

        let folder = path.parent().unwrap_or(Path::new(""));
        let mut shards = Vec::new();
        let mut numbers: BTreeMap<&String, usize> = BTreeMap::new();
        let mut holders: BTreeMap<String, &String> = BTreeMap::new();
        for file in names.values() {
            if numbers.contains_key(file) {
                continue;
            }
            let shard = folder.join(file);
            if !shard.exists() {
                return Err(error(format!("the shard {file} is missing: download it into the same folder")));
            }
            let shard = SafetensorsFile::open(shard)?;
            for name in shard.names() {
                if let Some(other) = holders.insert(name.clone(), file) {
                    return Err(error(format!("tensor `{name}` is in two shards, {other} and {file}")));
                }
            }
            numbers.insert(file, shards.len());
            shards.push(shard);
        }

        let (mut entries, mut shard_numbers) = (BTreeMap::new(), BTreeMap::new());
        for (name, file) in &names {
            let Some(&number) = numbers.get(file) else { continue };
            if !shards[number].has(name) {
                return Err(error(format!("tensor `{name}` should be in {file}, but is not")));
            }
            if let Some(info) = shards[number].entries().get(name) {
                entries.insert(name.clone(), info.clone());
                shard_numbers.insert(name.clone(), number);
            }
        }
        Ok(Self { index: path.to_path_buf(), shards, entries, shard_numbers })
    }

    /// The files that the index at `path` names, sorted and each once.
    ///
    /// # Errors
    /// Returns the errors of [`ShardedSafetensors::open`] that concern the index alone.
    pub fn files(path: impl AsRef<Path>) -> Result<Vec<String>> {
        let mut files: Vec<String> = shard_of_each(path.as_ref())?.into_values().collect();
        files.sort();
        files.dedup();
        Ok(files)
    }
}

impl TensorSource for ShardedSafetensors {
    fn entries(&self) -> &BTreeMap<String, TensorInfo> {
        &self.entries
    }

    fn others(&self) -> BTreeMap<String, String> {
        self.shards.iter().flat_map(SafetensorsFile::others).collect()
    }

    fn read(&self, name: &str) -> Result<HostTensor> {
        match self.shard_numbers.get(name).and_then(|&number| self.shards.get(number)) {
            Some(shard) => shard.read(name),
            None => Err(Error::file(&self.index, format!("tensor `{name}` is not in the index"))),
        }
    }
}

/// The file of every tensor in the index at `path`, each a plain name.
fn shard_of_each(path: &Path) -> Result<BTreeMap<String, String>> {
    let error = |message: String| Error::file(path, message);
    let index: Index = serde_json::from_slice(&read_unmarked(path)?)
        .map_err(|e| error(format!("not an index of safetensors files: {e}")))?;
    let mut names = BTreeMap::new();
    for (name, file) in index.weight_map.0 {
        if !is_plain(&file) {
            return Err(error(format!("tensor `{name}` has the file `{file}`, which is not a plain file name")));
        }
        if names.contains_key(&name) {
            return Err(error(format!("names tensor `{name}` twice")));
        }
        names.insert(name, file);
    }
    Ok(names)
}

/// Whether `file` names a file in the folder on every system.
fn is_plain(file: &str) -> bool {
    let mut parts = Path::new(file).components();
    let single = matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == file);
    single && !file.contains(['/', '\\', ':', '\0'])
}

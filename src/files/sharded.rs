//! Safetensors files cut into several, with an index that says which tensor is where.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};

use super::{HostTensor, SafetensorsFile, TensorInfo, TensorSource, read_unmarked};
use crate::error::{Error, Result};

/// The part of `model.safetensors.index.json` that matters here.
#[derive(Deserialize)]
struct Index {
    weight_map: Pairs,
}

/// A JSON object of strings with every pair that stands in the text, even where a key comes twice.
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

/// Several safetensors files beside an index (`model.safetensors.index.json`), each mapped as [`SafetensorsFile`] says.
pub struct ShardedSafetensors {
    index: PathBuf,
    shards: Vec<SafetensorsFile>,
    entries: BTreeMap<String, TensorInfo>,
    /// Which of the shards holds a tensor.
    homes: BTreeMap<String, usize>,
}

impl ShardedSafetensors {
    /// Opens all shards that the index at `path` names; no numbers are read. Shards lie beside the index: their names are plain file names.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the index cannot be read; [`Error::File`] if it is no such index, names a tensor twice or a file outside its folder,
    /// if a shard is missing, damaged or lacks a tensor it should have, or if two shards hold the same tensor.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let complain = |message: String| Error::file(path, message);
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
                return Err(complain(format!("the shard {file} is missing: download it into the same folder")));
            }
            let shard = SafetensorsFile::open(shard)?;
            for name in shard.names() {
                if let Some(other) = holders.insert(name.clone(), file) {
                    return Err(complain(format!("tensor `{name}` is in two shards, {other} and {file}")));
                }
            }
            numbers.insert(file, shards.len());
            shards.push(shard);
        }

        let (mut entries, mut homes) = (BTreeMap::new(), BTreeMap::new());
        for (name, file) in &names {
            let Some(&number) = numbers.get(file) else { continue };
            if !shards[number].has(name) {
                return Err(complain(format!("tensor `{name}` should be in {file}, but is not")));
            }
            if let Some(info) = shards[number].entries().get(name) {
                entries.insert(name.clone(), info.clone());
                homes.insert(name.clone(), number);
            }
        }
        Ok(Self { index: path.to_path_buf(), shards, entries, homes })
    }

    /// The files that the index at `path` names, in order, each once.
    ///
    /// # Errors
    ///
    /// Those of [`ShardedSafetensors::open`] that concern the index alone.
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
        match self.homes.get(name).and_then(|&number| self.shards.get(number)) {
            Some(shard) => shard.read(name),
            None => Err(Error::file(&self.index, format!("tensor `{name}` is not in the index"))),
        }
    }
}

/// The file that the index at `path` gives for every tensor, each a plain name.
fn shard_of_each(path: &Path) -> Result<BTreeMap<String, String>> {
    let complain = |message: String| Error::file(path, message);
    let index: Index = serde_json::from_slice(&read_unmarked(path)?)
        .map_err(|e| complain(format!("not an index of safetensors files: {e}")))?;
    let mut names = BTreeMap::new();
    for (name, file) in index.weight_map.0 {
        if !is_plain(&file) {
            return Err(complain(format!("tensor `{name}` is said to be in `{file}`, which is not a plain file name")));
        }
        if names.contains_key(&name) {
            return Err(complain(format!("names tensor `{name}` twice")));
        }
        names.insert(name, file);
    }
    Ok(names)
}

/// Whether `file` names something inside the folder, on every system.
fn is_plain(file: &str) -> bool {
    let mut parts = Path::new(file).components();
    let single = matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == file);
    single && !file.contains(['/', '\\', ':', '\0'])
}

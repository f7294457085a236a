//! Bridges as files: `bridges.safetensors`, and next to it `bridges.json`, which names the two
//! models that they join.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{BridgeTensor, Bridges};
use crate::files::versioned::{self, Versioned};
use crate::files::{HostTensor, load_tensors, save_tensors};
use crate::model::{Model, expect_model};
use crate::train::bridge::{BridgeConfig, EncoderKind};
use crate::train::step::AdamMoments;
use crate::{Error, Result};

const ABOUT: &str = "bridges.json";
const TENSORS: &str = "bridges.safetensors";
const MOMENTS: &str = "bridges_optimizer.safetensors";

/// A model that bridges end at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelName {
    /// Where it was, or its name on the Hub. A path that is not absolute starts in the folder of
    /// the bridges: `.` is the model next to them.
    pub path: String,
    /// The hash of its numbers ([`Model::hash`]).
    pub hash: String,
}

/// The contents of `bridges.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BridgeFile {
    /// The version of this file.
    pub version: u32,
    /// The dense model.
    pub dense: ModelName,
    /// The sparse model.
    pub sparse: ModelName,
    /// What encoders keep. Earlier versions knew AbsTopK only and wrote none.
    #[serde(default)]
    pub encoder: EncoderKind,
    /// AbsTopK: the fraction of the sparse stream that encoders keep.
    pub encoder_afrac: f64,
}

impl Versioned for BridgeFile {
    const WHAT: &'static str = "description of bridges";
    const VERSION: u32 = 1;

    fn check(&self) -> Result<(), String> {
        match [&self.dense, &self.sparse].iter().all(|model| !model.path.is_empty() && !model.hash.is_empty()) {
            true => Ok(()),
            false => Err("it names a model without path or hash".into()),
        }
    }
}

impl BridgeFile {
    /// Whether a folder has one.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(ABOUT).exists()
    }

    /// The description of bridges next to their sparse model.
    pub(crate) fn new(settings: &BridgeConfig, dense_hash: &str, sparse: &Model) -> Result<Self> {
        Ok(Self {
            version: Self::VERSION,
            dense: ModelName { path: settings.dense.clone(), hash: dense_hash.into() },
            sparse: ModelName { path: ".".into(), hash: sparse.hash()? },
            encoder: settings.encoder,
            encoder_afrac: settings.encoder_afrac,
        })
    }

    /// Reads the description of the bridges in `folder`.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::File`] naming the file.
    pub fn load(folder: &Path) -> Result<Self> {
        versioned::load(&folder.join(ABOUT))
    }

    /// Where the dense model is, if it is still there: next to the bridges in `folder`, or where
    /// its path says.
    pub fn dense_path(&self, folder: &Path) -> PathBuf {
        let moved = folder.join(&self.dense.path);
        if moved.exists() { moved } else { PathBuf::from(&self.dense.path) }
    }

    /// Writes the description and the bridges into an existing folder, each file whole or not at
    /// all.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file, and those of the device.
    pub fn save(&self, folder: &Path, bridges: &Bridges) -> Result<()> {
        save_tensors(folder.join(TENSORS), &bridges.to_host()?, None)?;
        versioned::save(self, &folder.join(ABOUT))
    }

    /// Reads the bridges that this describes onto the models' device. `dense` comes with its hash.
    ///
    /// # Errors
    /// [`Error::OtherModel`] if they join other models than these, [`Error::File`] if they are
    /// damaged; [`Error::Io`] naming the file.
    pub fn open(&self, folder: &Path, (dense, hash): (&Model, &str), sparse: &Model) -> Result<Bridges> {
        let found = [("dense model", &self.dense, hash.to_string()), ("sparse model", &self.sparse, sparse.hash()?)];
        for (model, expected, found) in found {
            let what = format!("{} (from {})", folder.join(ABOUT).display(), expected.path);
            expect_model(what, model, &expected.hash, &found)?;
        }
        let path = folder.join(TENSORS);
        let tensors = load_tensors(&path)?;
        let (encoder, afrac) = (self.encoder, self.encoder_afrac);
        Bridges::from_host(&dense.config, &sparse.config, encoder, afrac, &tensors, &sparse.device)
            .map_err(|error| error.in_file(&path, ""))
    }
}

/// Writes Adam's moments of the bridges.
pub(super) fn save_moments(folder: &Path, bridges: &Bridges, moments: &[AdamMoments]) -> Result<()> {
    let mut tensors = BTreeMap::new();
    for (BridgeTensor { name, .. }, AdamMoments { m, v }) in bridges.list.iter().zip(moments) {
        for (which, tensor) in [("m", m), ("v", v)] {
            let host = HostTensor { shape: tensor.shape().to_vec(), data: tensor.read()? };
            tensors.insert(format!("{which}.{name}"), host);
        }
    }
    save_tensors(folder.join(MOMENTS), &tensors, None)
}

/// Reads them back.
pub(super) fn load_moments(folder: &Path, bridges: &Bridges) -> Result<Vec<AdamMoments>> {
    let path = folder.join(MOMENTS);
    let tensors = load_tensors(&path)?;
    let moments = bridges.list.iter().map(|BridgeTensor { name, value }| {
        let take = |which: &str| {
            let name = format!("{which}.{name}");
            match tensors.get(&name) {
                Some(host) if host.shape == value.shape() => value.device().upload(&name, &host.shape, &host.data),
                _ => Err(Error::file(&path, format!("lacks {name} {:?}", value.shape()))),
            }
        };
        Ok(AdamMoments { m: take("m")?, v: take("v")? })
    });
    moments.collect()
}

//! Reading golden cases, from folders or from those built into the library.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::device::Device;
use crate::files::{HostTensor, parse_ids, parse_tensors};
use crate::model::{Model, Parameters, parse_config};
use crate::{Error, Result};

/// A golden case: a model, inputs, and what must come out.
pub struct Case {
    /// What to call it.
    pub name: String,
    source: Source,
    kind: CaseKind,
}

/// What a case puts to the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaseKind {
    /// One forward and backward pass.
    Forward,
    /// Some steps of training.
    Train,
    /// One step of pruning.
    Prune,
}

enum Source {
    Folder(PathBuf),
    BuiltIn([&'static [u8]; 5], &'static [u8]),
}

/// The files of a case.
const FILES: [&str; 5] =
    ["beeg_config.json", "meta.json", "model.safetensors", "inputs.safetensors", "expected.safetensors"];

macro_rules! embedded {
    ($($case:literal),*) => {
        [$(($case, [
            include_bytes!(concat!("../../tests/golden/", $case, "/beeg_config.json")).as_slice(),
            include_bytes!(concat!("../../tests/golden/", $case, "/meta.json")),
            include_bytes!(concat!("../../tests/golden/", $case, "/model.safetensors")),
            include_bytes!(concat!("../../tests/golden/", $case, "/inputs.safetensors")),
            include_bytes!(concat!("../../tests/golden/", $case, "/expected.safetensors")),
        ])),*]
    };
}

/// What the built-in cases chose among equals (see `choices.rs`).
const CHOICES: [(&str, &[u8]); 3] = [
    ("forward/relu_cat_pos", include_bytes!("../../tests/golden/forward/relu_cat_pos/choices.safetensors")),
    ("train/paper_schedule", include_bytes!("../../tests/golden/train/paper_schedule/choices.safetensors")),
    ("train/sparse_biases_clip", include_bytes!("../../tests/golden/train/sparse_biases_clip/choices.safetensors")),
];

/// The cases built into the library.
pub fn built_in() -> Vec<Case> {
    embedded!(
        "forward/dense_gpt2",
        "forward/paper",
        "forward/relu_cat_pos",
        "forward/sink_sparse",
        "prune/two_layer",
        "train/paper_schedule",
        "train/sparse_biases_clip"
    )
    .into_iter()
    .map(|(name, files)| Case {
        name: name.to_string(),
        source: Source::BuiltIn(files, CHOICES.iter().find(|(case, _)| *case == name).map_or(&[], |(_, c)| c)),
        kind: match name.split_once('/') {
            Some(("train", _)) => CaseKind::Train,
            Some(("prune", _)) => CaseKind::Prune,
            _ => CaseKind::Forward,
        },
    })
    .collect()
}

impl Case {
    /// A case in a folder, of the kind that its `meta.json` tells.
    pub(super) fn folder(path: &Path) -> Result<Self> {
        let (name, source) = (path.display().to_string(), Source::Folder(path.to_path_buf()));
        let mut case = Self { name, source, kind: CaseKind::Forward };
        let meta = case.meta()?;
        let has = |name: &str| meta.get(name).is_some();
        case.kind = match (has("loss"), has("hyperparameters"), has("task_loss")) {
            (true, false, false) => CaseKind::Forward,
            (false, true, false) => CaseKind::Train,
            (false, false, true) => CaseKind::Prune,
            _ => {
                let message = "not a golden case of a known kind (forward, train, prune)";
                return Err(Error::file(path.join("meta.json"), message));
            }
        };
        Ok(case)
    }

    /// What the case puts to the test.
    pub fn kind(&self) -> CaseKind {
        self.kind
    }

    fn path(&self, file: &str) -> PathBuf {
        match &self.source {
            Source::Folder(folder) => folder.join(file),
            Source::BuiltIn(..) => Path::new(&self.name).join(file),
        }
    }

    fn bytes(&self, file: &str) -> Result<Cow<'static, [u8]>> {
        match &self.source {
            Source::BuiltIn(files, _) => {
                let index = FILES.iter().position(|f| *f == file);
                let bytes = index.ok_or_else(|| Error::file(self.path(file), "not part of a built-in case"))?;
                Ok(Cow::Borrowed(files[bytes]))
            }
            Source::Folder(_) => {
                let path = self.path(file);
                std::fs::read(&path).map(Cow::Owned).map_err(|e| Error::io(path, e))
            }
        }
    }

    pub(super) fn meta(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.bytes("meta.json")?)
            .map_err(|e| Error::file(self.path("meta.json"), e.to_string()))
    }

    pub(super) fn model(&self, device: &Device) -> Result<Model> {
        let config = parse_config(&self.path("beeg_config.json"), &self.bytes("beeg_config.json")?)?;
        let tensors = self.tensors("model.safetensors")?;
        let parameters = Parameters::from_host(&config, tensors, device)?;
        Ok(Model { config, parameters, device: device.clone() })
    }

    pub(super) fn tensors(&self, file: &str) -> Result<BTreeMap<String, HostTensor>> {
        parse_tensors(&self.path(file), &self.bytes(file)?)
    }

    pub(super) fn tokens(&self) -> Result<(Vec<usize>, Vec<u32>)> {
        self.ids("tokens")
    }

    pub(super) fn ids(&self, name: &str) -> Result<(Vec<usize>, Vec<u32>)> {
        parse_ids(&self.path("inputs.safetensors"), &self.bytes("inputs.safetensors")?, name)
    }

    /// The choices beside the case or, where there are none, those of the built-in case that expects the same numbers.
    pub(super) fn choices(&self) -> Result<Option<(PathBuf, Cow<'static, [u8]>)>> {
        let path = self.path("choices.safetensors");
        match &self.source {
            Source::BuiltIn(_, []) => Ok(None),
            Source::BuiltIn(_, choices) => Ok(Some((path, Cow::Borrowed(*choices)))),
            Source::Folder(_) if path.exists() => {
                let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
                Ok(Some((path, Cow::Owned(bytes))))
            }
            Source::Folder(_) => {
                let expected = self.bytes("expected.safetensors")?;
                for case in built_in() {
                    if case.bytes("expected.safetensors")? == expected {
                        return case.choices();
                    }
                }
                Ok(None)
            }
        }
    }

    pub(super) fn error(&self, message: impl Into<String>) -> Error {
        Error::file(self.path("meta.json"), message)
    }
}

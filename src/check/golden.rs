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
    /// What the case checks.
    pub kind: CaseKind,
}

/// What a case checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaseKind {
    /// One forward and backward pass.
    Forward,
    /// Some steps of training.
    Train,
    /// One step of pruning.
    Prune,
    /// The objective of bridges, and its gradients.
    Bridge,
}

enum Source {
    Folder(PathBuf),
    BuiltIn(Files),
}

/// The files of a built-in case by their names, with a slash where they lie in folders.
type Files = &'static [(&'static str, &'static [u8])];

macro_rules! case {
    ($case:literal $(, $file:literal)*) => {
        ($case, &[$(($file, include_bytes!(concat!("../../tests/golden/", $case, "/", $file)) as &[u8])),*] as Files)
    };
}

/// A case of one model, and its further files.
macro_rules! model_case {
    ($case:literal $(, $more:literal)*) => {
        case!(
            $case, "beeg_config.json", "meta.json", "model.safetensors", "inputs.safetensors", "expected.safetensors"
            $(, $more)*
        )
    };
}

const BUILT_IN: [(&str, Files); 9] = [
    case!(
        "bridge/two_layer",
        "meta.json",
        "inputs.safetensors",
        "expected.safetensors",
        "bridges.safetensors",
        "dense/beeg_config.json",
        "dense/model.safetensors",
        "sparse/beeg_config.json",
        "sparse/model.safetensors"
    ),
    model_case!("forward/dense_gpt2"),
    model_case!("forward/gpt_neo"),
    model_case!("forward/paper"),
    model_case!("forward/relu_cat_pos", "choices.safetensors"),
    model_case!("forward/sink_sparse"),
    model_case!("prune/two_layer"),
    model_case!("train/paper_schedule", "choices.safetensors"),
    model_case!("train/sparse_biases_clip", "choices.safetensors"),
];

/// The cases built into the library.
pub fn built_in() -> Vec<Case> {
    let case = |&(name, files): &(&str, Files)| Case {
        name: name.to_string(),
        source: Source::BuiltIn(files),
        kind: match name.split_once('/') {
            Some(("train", _)) => CaseKind::Train,
            Some(("prune", _)) => CaseKind::Prune,
            Some(("bridge", _)) => CaseKind::Bridge,
            _ => CaseKind::Forward,
        },
    };
    BUILT_IN.iter().map(case).collect()
}

impl Case {
    /// A case in a folder. The fields of its `meta.json` tell its kind.
    ///
    /// # Errors
    /// [`crate::Error::File`] if the folder holds no case of a known kind.
    pub fn folder(path: &Path) -> Result<Self> {
        let (name, source) = (path.display().to_string(), Source::Folder(path.to_path_buf()));
        let mut case = Self { name, source, kind: CaseKind::Forward };
        let meta = case.meta()?;
        let has = |name: &str| meta.get(name).is_some();
        case.kind = match (has("loss"), has("hyperparameters"), has("task_loss"), has("per_site")) {
            (true, false, false, false) => CaseKind::Forward,
            (false, true, false, false) => CaseKind::Train,
            (false, false, true, false) => CaseKind::Prune,
            (false, false, false, true) => CaseKind::Bridge,
            _ => {
                let message = "not a golden case of a known kind (forward, train, prune, bridge)";
                return Err(Error::file(path.join("meta.json"), message));
            }
        };
        Ok(case)
    }

    fn path(&self, file: &str) -> PathBuf {
        match &self.source {
            Source::Folder(folder) => folder.join(file),
            Source::BuiltIn(..) => Path::new(&self.name).join(file),
        }
    }

    fn bytes(&self, file: &str) -> Result<Cow<'static, [u8]>> {
        match &self.source {
            Source::BuiltIn(files) => match files.iter().find(|(name, _)| *name == file) {
                Some((_, bytes)) => Ok(Cow::Borrowed(*bytes)),
                None => Err(Error::file(self.path(file), "not part of a built-in case")),
            },
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

    /// The case's model.
    pub(super) fn model(&self, device: &Device) -> Result<Model> {
        self.model_in("", device)
    }

    /// The model in a folder of the case, whose name ends with a slash.
    pub(super) fn model_in(&self, folder: &str, device: &Device) -> Result<Model> {
        let file = format!("{folder}beeg_config.json");
        let config = parse_config(&self.path(&file), &self.bytes(&file)?)?;
        let tensors = self.tensors(&format!("{folder}model.safetensors"))?;
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
        let ids = parse_ids(&self.path("inputs.safetensors"), &self.bytes("inputs.safetensors")?, name)?;
        Ok((ids.shape, ids.data))
    }

    /// The selections of the case or, without them, those of the built-in case that expects the
    /// same numbers.
    pub(super) fn choices(&self) -> Result<Option<(PathBuf, Cow<'static, [u8]>)>> {
        const FILE: &str = "choices.safetensors";
        let path = self.path(FILE);
        match &self.source {
            Source::BuiltIn(files) => {
                let choices = files.iter().find(|(name, _)| *name == FILE);
                Ok(choices.map(|(_, bytes)| (path, Cow::Borrowed(*bytes))))
            }
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

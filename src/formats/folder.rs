//! Where a model's files are: in a published folder, a Hugging Face folder, a run, a checkpoint, a
//! single file, or on the Hub.

use std::io;
use std::path::{Path, PathBuf};

use super::config::read;
use super::families::Foreign;
use super::hub::{Hub, HubId};
use super::names::{BEEG_CONFIG, CONFIG, INDEX, Naming, PYTORCH, TOKENIZER, TORCH, WEIGHTS};
use super::torch::TorchStateDict;
use crate::device::Device;
use crate::files::{Renamed, SafetensorsFile, ShardedSafetensors, TensorSource, open_input};
use crate::model::{Model, ModelConfig, Parameters, WeightFormat, check_tied, check_weights};
use crate::text::tokenizer::find_in;
use crate::{Error, Result};

/// How to look for a model.
#[derive(Clone, Debug, Default)]
pub struct FindOptions {
    /// Never use the network, only what is on the disk.
    pub offline: bool,
    /// A tokenizer to use instead of the one that comes with the model.
    pub tokenizer: Option<PathBuf>,
    /// Show a bar on standard error while something is downloaded.
    pub progress: bool,
    /// The Hub and its cache.
    pub hub: Hub,
}

/// A model's files, opened: the configuration is read, the weights are known to fit it, their
/// numbers are still on the disk.
pub struct ModelFiles {
    /// Shapes and variants.
    pub config: ModelConfig,
    /// The weights under the published names.
    pub weights: Box<dyn TensorSource>,
    /// The tokenizer, if there is one.
    pub tokenizer: Option<PathBuf>,
    /// The file that the configuration is from.
    pub config_path: PathBuf,
    /// The file (or index of files) that the weights are in.
    pub weights_path: PathBuf,
}

impl std::fmt::Debug for ModelFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let (config, weights) = (&self.config_path, &self.weights_path);
        f.debug_struct("ModelFiles").field("config", config).field("weights", weights).finish_non_exhaustive()
    }
}

impl ModelFiles {
    /// Finds and opens the model that `spec` names: whatever [`ModelFiles::open`] takes, or, where
    /// nothing of that name exists, a model on the Hugging Face Hub, `owner/name` or
    /// `owner/name@revision`, which is downloaded unless it is in the cache already.
    ///
    /// # Errors
    /// Those of [`ModelFiles::open`] and `Hub::fetch`; [`Error::Io`] if `spec` is none of these things.
    pub fn find(spec: impl AsRef<Path>, options: &FindOptions) -> Result<Self> {
        let path = spec.as_ref();
        // A link whose target is missing is still a path; opening it reports the error.
        let mut files = if path.symlink_metadata().is_ok() {
            Self::open(path)?
        } else if let Some(id) = path.to_str().and_then(HubId::parse) {
            Self::open(options.hub.fetch(&id, options.offline, options.progress)?)?
        } else {
            let message =
                "no such file or folder, and not the name of a model on the Hugging Face Hub (owner/name) either";
            return Err(Error::io(path, io::Error::new(io::ErrorKind::NotFound, message)));
        };
        if let Some(tokenizer) = &options.tokenizer {
            files.tokenizer = Some(tokenizer.clone());
        }
        Ok(files)
    }

    /// Opens the model at `path`:
    ///
    /// * a folder with `config.json` or `beeg_config.json` next to `model.safetensors`,
    ///   `model.safetensors.index.json` and its shards, `final_model.pt` or `pytorch_model.bin` (the
    ///   first of them that is there);
    /// * a run of the trainer (its newest checkpoint is taken);
    /// * a file of weights with the configuration next to it.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::File`] naming the folder that lacks something, or the file that
    /// is damaged or does not fit the other.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let metadata = path.metadata().map_err(|e| Error::io(path, e))?;
        if !metadata.is_dir() {
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            return Self::of(folder, path);
        }
        let open = |folder: &Path| Self::of(folder, &find_weights(folder)?);
        let Some(mut checkpoints) = checkpoints(path)? else { return open(path) };
        let newest = checkpoints.pop().ok_or_else(|| no_checkpoint(path))?;
        open(&newest).map_err(|fault| match checkpoints.into_iter().rev().find(|earlier| open(earlier).is_ok()) {
            Some(whole) => Error::Checkpoint { fault: Box::new(fault), whole },
            None => fault,
        })
    }

    /// The model whose weights are at `weights_path`, and whose configuration is in `folder`.
    fn of(folder: &Path, weights_path: &Path) -> Result<Self> {
        let (config_path, (config, foreign)) = find_config(folder)?;
        let weights = open_weights(weights_path)?;
        let naming = Naming::of(weights.entries().keys(), config.tied_unembed);
        let weights = Renamed::wrap(weights, |name| naming.published(name), weights_path)?;
        let weights = match foreign {
            Some(foreign) => foreign.assemble(&config, weights, weights_path)?,
            None => weights,
        };
        let tokenizer = find_tokenizer(folder);
        let files = Self { config, weights, tokenizer, config_path, weights_path: weights_path.into() };
        files.misfit(check_weights(&files.config, files.weights.as_ref()))?;
        Ok(files)
    }

    /// Returns an error if the two matrices that the configuration says are one differ; see
    /// [`check_tied`].
    ///
    /// # Errors
    /// [`Error::File`] naming both, and those of reading.
    pub fn check_tied(&self) -> Result<()> {
        self.misfit(check_tied(&self.config, self.weights.as_ref()))
    }

    /// The same result, its error with the names of both files.
    fn misfit<T>(&self, result: Result<T>) -> Result<T> {
        let prefix = format!("does not fit {}: ", self.config_path.display());
        result.map_err(|error| error.in_file(&self.weights_path, &prefix))
    }

    /// Reads the weights onto a device, one tensor at a time.
    ///
    /// # Errors
    /// Those of reading the weights, naming the file, and the device's limits.
    pub fn load(&self, format: WeightFormat, device: &Device) -> Result<Model> {
        let parameters = self.misfit(Parameters::load(&self.config, self.weights.as_ref(), format, device))?;
        Ok(Model { config: self.config.clone(), parameters, device: device.clone() })
    }
}

/// The checkpoints in `folder`, oldest first, if it is a run and not itself the folder of a model.
fn checkpoints(folder: &Path) -> Result<Option<Vec<PathBuf>>> {
    if [CONFIG, BEEG_CONFIG, WEIGHTS, INDEX, TORCH, PYTORCH].iter().any(|name| folder.join(name).exists()) {
        return Ok(None);
    }
    let checkpoints = folder.join("checkpoints");
    if !checkpoints.is_dir() {
        return if folder.join("config.toml").exists() { Err(no_checkpoint(folder)) } else { Ok(None) };
    }
    let mut all: Vec<(u64, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(&checkpoints).map_err(|e| Error::io(&checkpoints, e))? {
        let path = entry.map_err(|e| Error::io(&checkpoints, e))?.path();
        let step = path.file_name().and_then(|name| name.to_str()?.strip_prefix("step-")?.parse().ok());
        all.extend(step.map(|step| (step, path)));
    }
    all.sort();
    Ok(Some(all.into_iter().map(|(_, path)| path).collect()))
}

fn no_checkpoint(run: &Path) -> Error {
    Error::file(run, "is a run without a checkpoint yet: train on until it has written one")
}

/// The configuration in `folder`. Where both kinds are, Hugging Face's is taken if it can be read.
fn find_config(folder: &Path) -> Result<(PathBuf, (ModelConfig, Option<Foreign>))> {
    let (ours, beeg) = (folder.join(CONFIG), folder.join(BEEG_CONFIG));
    match (ours.exists(), beeg.exists()) {
        (false, false) => Err(Error::file(
            folder,
            format!("has no configuration ({CONFIG} or {BEEG_CONFIG}): put the one that came with the weights there"),
        )),
        (true, true) => match read(&ours) {
            Ok(config) => Ok((ours, config)),
            Err(error) => {
                tracing::warn!("{error}; taking {BEEG_CONFIG} instead");
                read(&beeg).map(|config| (beeg, config))
            }
        },
        (true, false) => read(&ours).map(|config| (ours, config)),
        (false, true) => read(&beeg).map(|config| (beeg, config)),
    }
}

fn find_weights(folder: &Path) -> Result<PathBuf> {
    let names = [WEIGHTS, INDEX, TORCH, PYTORCH];
    match names.iter().map(|name| folder.join(name)).find(|path| path.exists()) {
        Some(path) => Ok(path),
        None => {
            let found = [CONFIG, BEEG_CONFIG].iter().any(|name| folder.join(name).exists());
            let advice = if found {
                "put the file of weights next to the configuration"
            } else {
                "is it the folder of a model, or of a run?"
            };
            Err(Error::file(folder, format!("has no weights ({}): {advice}", names.join(", "))))
        }
    }
}

/// The tokenizer next to the weights or, for a checkpoint, that of its run.
fn find_tokenizer(folder: &Path) -> Option<PathBuf> {
    if let Some(path) = find_in(folder) {
        return Some(path);
    }
    let absolute = std::path::absolute(folder).ok()?;
    let is_step = absolute.file_name()?.to_str()?.starts_with("step-");
    let checkpoints = absolute.parent().filter(|above| is_step && above.ends_with("checkpoints"))?;
    Some(checkpoints.parent()?.join(TOKENIZER)).filter(|path| path.is_file())
}

/// Opens a file of weights by the kind that its name says.
fn open_weights(path: &Path) -> Result<Box<dyn TensorSource>> {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let opened = if name.ends_with(b".safetensors") {
        SafetensorsFile::open(path).map(|file| Box::new(file) as Box<dyn TensorSource>)
    } else if name.ends_with(b".safetensors.index.json") {
        ShardedSafetensors::open(path).map(|file| Box::new(file) as Box<dyn TensorSource>)
    } else if name.ends_with(b".pt") || name.ends_with(b".bin") {
        TorchStateDict::open(path).map(|weights| Box::new(weights) as Box<dyn TensorSource>)
    } else {
        Err(Error::file(
            path,
            format!("is not a file of weights; those are called {WEIGHTS}, {INDEX}, {TORCH} or {PYTORCH}"),
        ))
    };
    opened.map_err(|error| if is_pointer(path) { pointer_error(path) } else { error })
}

/// Whether the file is a placeholder for one that Git has not fetched.
fn is_pointer(path: &Path) -> bool {
    use std::io::Read;
    const START: &[u8] = b"version https://git-lfs.github.com/spec/";
    let mut head = Vec::new();
    let Ok(file) = open_input(path) else { return false };
    file.take(START.len() as u64).read_to_end(&mut head).is_ok() && head == START
}

fn pointer_error(path: &Path) -> Error {
    Error::file(path, "is a Git LFS pointer, not the weights themselves: run `git lfs pull` in its folder")
}

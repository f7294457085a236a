//! What a run leaves behind so that it can go on: `checkpoints/step-<n>/` with `model.safetensors` and `config.json` under
//! published names, `optimizer.safetensors` and `state.json`.
//!
//! A checkpoint appears under its name only when it is whole and synced; a kill at any instant leaves the one before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::config::RunConfig;
use super::run::Learner;
use super::step::{Moments, Trainer};
use crate::device::Device;
use crate::files::{
    HostTensor, clean_temporaries, create_folder, load_tensors, read_input_text, replace_dir_atomic, save_tensors,
    write_atomic,
};
use crate::model::Model;
use crate::{Error, Result};

/// The version of `state.json`.
const VERSION: u32 = 1;

/// What a checkpoint says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Version of this file's layout.
    pub version: u32,
    /// Optimizer steps done.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// Identifies documents, tokenizer and split.
    pub corpus: String,
    /// Hash of the tokenizer.
    pub tokenizer: String,
}

/// The folder of a run's checkpoints.
pub fn folder(run: &Path) -> PathBuf {
    run.join("checkpoints")
}

/// All whole checkpoints of a run, oldest first, with their steps.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be read; a run without any has an empty list.
pub fn list(run: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let folder = folder(run);
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(|e| Error::io(&folder, e))? {
        let path = entry.map_err(|e| Error::io(&folder, e))?.path();
        let step = path.file_name().and_then(|n| n.to_str()?.strip_prefix("step-")?.parse().ok());
        found.extend(step.map(|step| (step, path)));
    }
    found.sort();
    Ok(found)
}

/// Removes what a killed run left half-written. Only for the one process that writes to the run.
///
/// # Errors
/// [`Error::Io`].
pub fn clean(run: &Path) -> Result<()> {
    let folder = folder(run);
    if folder.exists() { clean_temporaries(folder) } else { Ok(()) }
}

/// Writes the learner's state as a checkpoint and removes the oldest ones beyond `keep` (0 keeps all).
///
/// # Errors
/// [`Error::Io`] naming the file, for example on a full disk; older checkpoints are then untouched.
pub fn save(run: &Path, learner: &impl Learner, corpus: &str, tokenizer: &str, keep: usize) -> Result<PathBuf> {
    let trainer = learner.trainer();
    let step = trainer.steps_done();
    let path = folder(run).join(format!("step-{step}"));
    let state = State {
        version: VERSION,
        step,
        steps: trainer.optimizer.steps,
        corpus: corpus.into(),
        tokenizer: tokenizer.into(),
    };
    create_folder(folder(run))?;
    replace_dir_atomic(&path, |temporary| {
        trainer.model.save(temporary)?;
        save_tensors(temporary.join("optimizer.safetensors"), &moments_to_host(trainer)?, None)?;
        learner.save(temporary)?;
        let file = temporary.join("state.json");
        let text = serde_json::to_string_pretty(&state).map_err(|e| Error::file(&file, e.to_string()))?;
        write_atomic(&file, |out| writeln!(out, "{text}").map_err(|e| Error::io(&file, e)))
    })?;
    if keep > 0 {
        let all = list(run)?;
        for (_, old) in &all[..all.len().saturating_sub(keep)] {
            std::fs::remove_dir_all(old).map_err(|e| Error::io(old, e))?;
        }
    }
    Ok(path)
}

/// Reads a checkpoint back into a trainer.
///
/// # Errors
/// [`Error::Io`] and [`Error::File`] naming the file that is missing, damaged, or belongs to another run.
pub fn load(path: &Path, config: &RunConfig, device: &Device) -> Result<(Trainer, State)> {
    let file = path.join("state.json");
    let text = read_input_text(&file)?;
    let state: State = serde_json::from_str(&text).map_err(|e| Error::file(&file, e.to_string()))?;
    if state.version != VERSION {
        return Err(Error::file(&file, format!("has version {}, this program reads {VERSION}", state.version)));
    }
    if state.steps != config.train.steps {
        let message = format!("is of a run of {} steps; config.toml says {}", state.steps, config.train.steps);
        return Err(Error::file(&file, message));
    }
    let mut model = Model::load(path, device)?;
    if model.config.without_unused() != config.model.without_unused() {
        return Err(Error::file(path.join("config.json"), "is of another model than the run's config.toml"));
    }
    model.config = config.model.clone();
    let mut trainer = Trainer::new(model, config.train.clone(), config.sparsity.clone())?;
    let file = path.join("optimizer.safetensors");
    let moments = moments_from_host(&trainer, &file, load_tensors(&file)?)?;
    trainer.restore(state.step, moments)?;
    Ok((trainer, state))
}

fn moments_to_host(trainer: &Trainer) -> Result<BTreeMap<String, HostTensor>> {
    let mut tensors = BTreeMap::new();
    for (p, moments) in trainer.model.parameters.iter().zip(trainer.moments()) {
        for (which, tensor) in moments.iter().flat_map(|Moments { m, v }| [("m", m), ("v", v)]) {
            let host = HostTensor { shape: tensor.shape().to_vec(), data: tensor.read()? };
            tensors.insert(format!("{which}.{}", p.name), host);
        }
    }
    Ok(tensors)
}

fn moments_from_host(
    trainer: &Trainer,
    file: &Path,
    mut tensors: BTreeMap<String, HostTensor>,
) -> Result<Vec<Option<Moments>>> {
    let device = &trainer.model.device;
    let mut take = |which: &str, name: &str, shape: &[usize]| {
        let name = format!("{which}.{name}");
        match tensors.remove(&name) {
            Some(host) if host.shape == shape => device.upload(&name, shape, &host.data),
            _ => Err(Error::file(file, format!("lacks {name} {shape:?}"))),
        }
    };
    let mut moments = Vec::new();
    for p in trainer.model.parameters.iter() {
        let shape = &p.shape;
        moments.push(match trainer.trains(p.kind) {
            true => Some(Moments { m: take("m", &p.name, shape)?, v: take("v", &p.name, shape)? }),
            false => None,
        });
    }
    Ok(moments)
}

//! What a run saves so that it can continue: `checkpoints/step-<n>/` with `model.safetensors` and
//! `config.json` under published names, `optimizer.safetensors` and `state.json`.
//!
//! A checkpoint appears under its name only when it is whole and synced; a kill at any instant
//! leaves the one before. Its `state.json` has the checksums of its other files and the settings
//! that steps depend on, so that damage and changed settings are found before training continues
//! with them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::RunConfig;
use super::run::{StartFrom, Trainable};
use super::step::{AdamMoments, Trainer};
use crate::device::Device;
use crate::files::{
    HostTensor, clean_temporaries, create_folder, load_tensors, read_text, replace_dir_atomic, save_tensors,
    write_atomic,
};
use crate::model::{Kind, Model};
use crate::sparsity::kept;
use crate::{Error, Result};

/// The version of `state.json`.
const VERSION: u32 = 1;

/// A checkpoint's description of itself.
const STATE: &str = "state.json";

/// Where checkpoints are moved that are later than the one that a run continues from.
const ASIDE: &str = "aside";

/// What a checkpoint says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointState {
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
    /// The settings that steps depend on. Earlier versions wrote none.
    #[serde(default)]
    pub settings: BTreeMap<String, Value>,
    /// CRC-32C of the other files by name. Earlier versions wrote none.
    #[serde(default)]
    pub checksums: BTreeMap<String, u32>,
}

impl CheckpointState {
    /// Returns an error if the checkpoint at `path` was made with other settings than `config`.
    pub(crate) fn belongs_to(&self, config: &RunConfig, path: &Path) -> Result<()> {
        if self.steps != config.train.steps {
            let message = format!("is of a run of {} steps; config.toml says {}", self.steps, config.train.steps);
            return Err(Error::file(path.join(STATE), message));
        }
        let now = config.step_settings()?;
        // A setting that only one of them knows is younger than the other.
        let differs = |(key, then): &(&String, &Value)| now.get(*key).is_some_and(|now| differ(then, now));
        let Some((key, then)) = self.settings.iter().find(differs) else { return Ok(()) };
        let now = now.get(key).cloned().unwrap_or_default();
        let message = format!(
            "was trained with {key} = {then}, but the run's config.toml says {now}: put it back there, or begin another run \
             with those settings (--config)"
        );
        Err(Error::file(path.join(STATE), message))
    }
}

/// Whether a setting changed. In a section, such as that of coefficients, one that only one of both
/// knows is younger than the other.
fn differ(then: &Value, now: &Value) -> bool {
    match (then, now) {
        (Value::Object(then), Value::Object(now)) => {
            then.iter().any(|(key, then)| now.get(key).is_some_and(|now| differ(then, now)))
        }
        _ => then != now,
    }
}

/// The folder of a run's checkpoints.
pub(crate) fn folder(run: &Path) -> PathBuf {
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

/// Which of `all` checkpoints of the folder `run` a run continues from; none where it starts at the
/// beginning.
pub(crate) fn chosen(run: &Path, all: &[(u64, PathBuf)], start: StartFrom) -> Result<Option<usize>> {
    let StartFrom::Step(requested) = start else {
        return Ok(all.len().checked_sub(1).filter(|_| start == StartFrom::Newest));
    };
    match all.iter().position(|(step, _)| *step == requested) {
        Some(at) => Ok(Some(at)),
        None => {
            let steps: Vec<_> = all.iter().map(|(step, _)| format!("step-{step}")).collect();
            let there = if steps.is_empty() { "none".into() } else { steps.join(", ") };
            Err(Error::file(folder(run), format!("has no checkpoint step-{requested}; there are: {there}")))
        }
    }
}

/// The run and the step of the checkpoint that `path` names as `RUN/checkpoints/step-N`, if it
/// does.
pub(crate) fn run_and_step(path: &Path) -> Option<(PathBuf, u64)> {
    let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix("step-")?.parse::<u64>().ok();
    let run = |path: &Path| {
        let checkpoints = path.parent()?;
        checkpoints.ends_with("checkpoints").then(|| checkpoints.parent().map(Path::to_path_buf)).flatten()
    };
    let run = run(path).or_else(|| run(&std::path::absolute(path).ok()?))?;
    let run = if run.as_os_str().is_empty() { PathBuf::from(".") } else { run };
    Some((run, step(path)?))
}

/// Moves checkpoints of the folder `run` out of the way, to `checkpoints/aside`.
pub(crate) fn set_aside(run: &Path, checkpoints: &[(u64, PathBuf)]) -> Result<()> {
    let aside = folder(run).join(ASIDE);
    let free = |name: &str, end: &str| {
        let names = std::iter::once(format!("{name}{end}")).chain((2u64..).map(|n| format!("{name}-{n}{end}")));
        names
            .map(|name| aside.join(name))
            .find(|path| path.symlink_metadata().is_err())
            .unwrap_or_else(|| aside.clone())
    };
    let (Some((last, _)), metrics) = (checkpoints.last(), run.join("metrics.jsonl")) else { return Ok(()) };
    create_folder(&aside)?;
    // The lines after the step that training continues from are written again.
    if metrics.exists() {
        let to = free(&format!("metrics-step-{last}"), ".jsonl");
        let lines = fs::read(&metrics).map_err(|e| Error::io(&metrics, e))?;
        write_atomic(&to, |out| out.write_all(&lines).map_err(|e| Error::io(&to, e)))?;
        tracing::info!("the metrics so far are kept in {}", to.display());
    }
    for (step, path) in checkpoints {
        let to = free(&format!("step-{step}"), "");
        fs::rename(path, &to).map_err(|e| Error::io(path, e))?;
        tracing::info!("{} is now {}", path.display(), to.display());
    }
    Ok(())
}

/// Removes what a killed run left half-written. Only for the one process that writes to the run.
pub(crate) fn clean(run: &Path) -> Result<()> {
    let folder = folder(run);
    if folder.exists() { clean_temporaries(folder) } else { Ok(()) }
}

/// Writes the trainee's state as a checkpoint of the run in the folder `run` and removes the oldest
/// ones beyond `keep_checkpoints`. `corpus` and `tokenizer` are the hashes of what the run learns
/// from.
pub(crate) fn save(
    run: &Path,
    trainee: &impl Trainable,
    (corpus, tokenizer): (&str, &str),
    config: &RunConfig,
) -> Result<PathBuf> {
    let trainer = trainee.trainer();
    let step = trainer.steps_done();
    let path = folder(run).join(format!("step-{step}"));
    let mut state = CheckpointState {
        version: VERSION,
        step,
        steps: trainer.optimizer.steps,
        corpus: corpus.into(),
        tokenizer: tokenizer.into(),
        settings: config.step_settings()?,
        checksums: BTreeMap::new(),
    };
    create_folder(folder(run))?;
    replace_dir_atomic(&path, |temporary| {
        trainer.model.save(temporary)?;
        save_tensors(temporary.join("optimizer.safetensors"), &moments_to_host(trainer)?, None)?;
        trainee.save(temporary)?;
        state.checksums = checksums(temporary)?;
        write_state(temporary, &state)
    })?;
    let keep = config.run.keep_checkpoints;
    if keep > 0 {
        let all = list(run)?;
        for (_, old) in &all[..all.len().saturating_sub(keep)] {
            fs::remove_dir_all(old).map_err(|e| Error::io(old, e))?;
        }
    }
    Ok(path)
}

/// Makes the folder `out` a run of the settings `config` that continues from a checkpoint of the run
/// in `source`, which stays unchanged. `out` must not exist or be empty; it appears whole or not at
/// all.
///
/// # Errors
/// [`Error::File`] if the run has no such checkpoint, if all steps of `config` are done there, or if
/// something is in `out`; [`Error::Io`] naming what the system refuses.
pub(crate) fn fork(source: &Path, start: StartFrom, out: &Path, config: &RunConfig) -> Result<()> {
    let all = list(source)?;
    let missing = || Error::file(folder(source), "has no checkpoint to continue from");
    let (step, checkpoint) = chosen(source, &all, start)?.and_then(|at| all.get(at)).ok_or_else(missing)?;
    let state = state(checkpoint)?;
    let steps = config.train.steps;
    if steps <= *step {
        let message = format!("has done {step} steps already, so that {steps} are none more: name a larger number");
        return Err(Error::file(checkpoint, message));
    }
    if fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Error::file(out, "is not empty: choose another folder (--out)"));
    }
    let state = CheckpointState { steps, settings: config.step_settings()?, ..state };
    if let Some(above) = out.parent() {
        create_folder(above)?;
    }
    replace_dir_atomic(out, |run| {
        for (from, name) in files_in(source)? {
            if KEPT.iter().any(|kept| name.starts_with(kept)) {
                copy(&from, &run.join(name))?;
            }
        }
        let to = folder(run).join(format!("step-{step}"));
        create_folder(&to)?;
        for (from, name) in files_in(checkpoint)? {
            copy(&from, &to.join(name))?;
        }
        write_state(&to, &state)?;
        let settings = run.join("config.toml");
        let text = config.to_toml()?;
        write_atomic(&settings, |out| out.write_all(text.as_bytes()).map_err(|e| Error::io(&settings, e)))
    })
}

/// How the names of the files begin that a run which continues another one takes from it.
const KEPT: [&str; 3] = ["tokenizer.json", "metrics.jsonl", "events.out.tfevents"];

/// The files in a folder, with their names.
fn files_in(folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    let failed = |e| Error::io(folder, e);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|_| path.is_file()) {
            files.push((path.clone(), name.to_string()));
        }
    }
    Ok(files)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).map_err(|e| Error::io(to, e))
}

fn write_state(folder: &Path, state: &CheckpointState) -> Result<()> {
    let file = folder.join(STATE);
    let text = serde_json::to_string_pretty(state).map_err(|e| Error::file(&file, e.to_string()))?;
    write_atomic(&file, |out| writeln!(out, "{text}").map_err(|e| Error::io(&file, e)))
}

/// The checksums of the files in a folder, by name.
fn checksums(folder: &Path) -> Result<BTreeMap<String, u32>> {
    files_in(folder)?.into_iter().map(|(path, name)| Ok((name, checksum(&path)?))).collect()
}

/// CRC-32C of a file.
fn checksum(path: &Path) -> Result<u32> {
    let failed = |e| Error::io(path, e);
    let mut file = File::open(path).map_err(failed)?;
    let (mut bytes, mut crc) = (vec![0; 1 << 20], 0);
    loop {
        match file.read(&mut bytes).map_err(failed)? {
            0 => return Ok(crc),
            read => crc = crc32c::crc32c_append(crc, &bytes[..read]),
        }
    }
}

/// What the checkpoint at `path` says of itself.
///
/// # Errors
/// [`Error::Io`] and [`Error::File`] naming its `state.json` where that is missing, damaged, or of
/// another checkpoint.
pub fn state(path: &Path) -> Result<CheckpointState> {
    let file = path.join(STATE);
    let text = read_text(&file)?;
    let state: CheckpointState = serde_json::from_str(&text).map_err(|e| Error::file(&file, e.to_string()))?;
    if state.version != VERSION {
        return Err(Error::file(&file, format!("has version {}, this program reads {VERSION}", state.version)));
    }
    match run_and_step(path) {
        Some((_, step)) if step != state.step => {
            Err(Error::file(&file, format!("is of step {}, but lies in the folder of step {step}", state.step)))
        }
        _ if state.step > state.steps => {
            Err(Error::file(&file, format!("has done {} of {} steps", state.step, state.steps)))
        }
        _ => Ok(state),
    }
}

/// Reads a checkpoint, of which `state` is what it says of itself, back into a trainer.
///
/// # Errors
/// [`Error::Io`] and [`Error::File`] naming the file that is missing, damaged, or belongs to
/// another run.
pub fn load(path: &Path, state: &CheckpointState, config: &RunConfig, device: &Device) -> Result<Trainer> {
    for (name, &saved) in &state.checksums {
        let file = path.join(name);
        if checksum(&file)? != saved {
            return Err(Error::file(file, "is damaged: it is no longer what was saved (its checksum differs)"));
        }
    }
    let mut model = Model::load(path, device)?;
    if model.config.without_unused() != config.model.without_unused() {
        return Err(Error::file(path.join("config.json"), "is of another model than the run's config.toml"));
    }
    model.config = config.model.clone();
    let weights = path.join("model.safetensors");
    let trainer = Trainer::new(model, config.train.clone(), config.sparsity.clone());
    let mut trainer = trainer.map_err(|error| match error {
        Error::NonFiniteSite { site, value, .. } => Error::file(&weights, format!("is damaged: {site} holds {value}")),
        error => error,
    })?;
    check_weights(&trainer, state.step, &weights)?;
    let file = path.join("optimizer.safetensors");
    let moments = moments_from_host(&trainer, &file, load_tensors(&file)?)?;
    trainer.restore(state.step, moments)?;
    Ok(trainer)
}

/// Returns an error if trained numbers are not finite, or matrices have more nonzero weights than
/// the settings let them have after `step` steps.
fn check_weights(trainer: &Trainer, step: u64, file: &Path) -> Result<()> {
    let (schedule, steps) = (&trainer.schedule, trainer.optimizer.steps);
    for p in trainer.model.parameters.iter().filter(|p| trainer.trains(p.kind)) {
        let numbers = p.dense()?.read()?;
        if let Some(value) = numbers.iter().find(|value| !value.is_finite()) {
            return Err(Error::file(file, format!("is damaged: {} holds {value}", p.name)));
        }
        let nonzeros = numbers.iter().filter(|value| **value != 0.0).count();
        let Some(limit) = step.checked_sub(1).and_then(|last| kept(p, schedule, (last, steps))) else { continue };
        if nonzeros > limit {
            let key = if matches!(p.kind, Kind::Hidden(_)) { "target_density" } else { "embed_target_density" };
            let message = format!(
                "{} has {nonzeros} nonzero weights, but sparsity.{key} in the run's config.toml allows {limit} after step \
                 {step}: either the file is damaged or the setting was changed",
                p.name
            );
            return Err(Error::file(file, message));
        }
    }
    Ok(())
}

fn moments_to_host(trainer: &Trainer) -> Result<BTreeMap<String, HostTensor>> {
    let mut tensors = BTreeMap::new();
    for (p, moments) in trainer.model.parameters.iter().zip(&trainer.moments) {
        for (which, tensor) in moments.iter().flat_map(|AdamMoments { m, v }| [("m", m), ("v", v)]) {
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
) -> Result<Vec<Option<AdamMoments>>> {
    let device = &trainer.model.device;
    let mut take = |which: &str, name: &str, shape: &[usize]| {
        let name = format!("{which}.{name}");
        match tensors.remove(&name) {
            Some(host) if host.shape == shape => match host.data.iter().find(|value| !value.is_finite()) {
                Some(value) => Err(Error::file(file, format!("is damaged: {name} holds {value}"))),
                None => device.upload(&name, shape, &host.data),
            },
            _ => Err(Error::file(file, format!("lacks {name} {shape:?}"))),
        }
    };
    let mut moments = Vec::new();
    for p in trainer.model.parameters.iter() {
        let shape = &p.shape;
        moments.push(match trainer.trains(p.kind) {
            true => Some(AdamMoments { m: take("m", &p.name, shape)?, v: take("v", &p.name, shape)? }),
            false => None,
        });
    }
    Ok(moments)
}

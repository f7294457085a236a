//! Runs that train bridges: a request, and the training of a run whose settings have a section
//! `bridge`.

use std::path::Path;

use super::{BridgeTrainer, estimate};
use crate::error::explain;
use crate::formats::{FindOptions, ModelFiles};
use crate::model::{Model, ModelConfig, WeightFormat};
use crate::text::notation;
use crate::text::tokenizer::Tokenizer;
use crate::train::bridge::BridgeConfig;
use crate::train::config::RunConfig;
use crate::train::init::InitialModel;
use crate::train::request::{TrainRequest, absolute};
use crate::train::run::{Event, Run, StartFrom, TrainResult};
use crate::{Error, Result};

/// A run that trains bridges.
#[derive(Clone, Debug, Default)]
pub struct BridgeRequest {
    /// The dense model; none for a run that is resumed.
    pub dense: Option<String>,
    /// The sparse model that training starts from, at its density; none: a new one.
    pub sparse: Option<String>,
    /// The run.
    pub run: TrainRequest,
}

impl BridgeRequest {
    /// The settings. Shapes that both models share are the dense one's, unless they are set.
    ///
    /// # Errors
    /// Those of [`TrainRequest::settings`] and [`ModelFiles::find`]; [`Error::Tokenizer`] if there
    /// is no tokenizer, or one of another size than the dense model's vocabulary.
    pub fn settings(&self) -> Result<RunConfig> {
        if self.run.init.is_some() {
            return Err(Error::Request(
                "bridges start from a sparse model with --sparse MODEL, not with --init".into(),
            ));
        }
        let Some(name) = &self.dense else { return self.run.settings(|_| ()) };
        let dense = find(name)?;
        let sparse = self.sparse.as_deref().map(find).transpose()?;
        if let (Some(sparse), Some(other)) = (&sparse, &self.sparse) {
            expect_same_tokens((name, &dense), (other, sparse))?;
        }
        let mut config = self.run.settings(|config| {
            let ModelConfig { n_layer, vocab_size, block_size, .. } = dense.config;
            config.model = ModelConfig { n_layer, vocab_size, block_size, ..config.model.clone() };
            if let Some(sparse) = &sparse {
                // Settings that only other programs use are dropped.
                config.model = sparse.config.without_unused();
                // Annealed from density 1, the model would lose its sparsity.
                (config.sparsity.anneal_start_frac, config.sparsity.anneal_stop_frac) = (0.0, 0.0);
            }
            config.bridge = Some(BridgeConfig::default());
        })?;
        let bridge = config.bridge.get_or_insert_default();
        bridge.dense = full_path(name)?;
        bridge.sparse = self.sparse.as_deref().map(full_path).transpose()?;
        if config.data.tokenizer.is_none() {
            let message = "the dense model comes without a tokenizer.json: name one with --tokenizer";
            let tokenizer = dense.tokenizer.as_ref().ok_or_else(|| Error::Tokenizer(message.into()))?;
            config.data.tokenizer = Some(absolute(tokenizer)?);
        }
        if let Some(path) = &config.data.tokenizer {
            let (entries, vocabulary) = (Tokenizer::load(path)?.vocab_size(), config.model.vocab_size);
            if entries != vocabulary {
                return Err(Error::Tokenizer(format!(
                    "{} has {entries} entries, but the dense model's vocabulary is {vocabulary} ({}): name the dense model's \
                     tokenizer with --tokenizer",
                    path.display(),
                    tokenizer_of(&dense)
                )));
            }
        }
        Ok(config)
    }
}

/// Trains the sparse model of a run together with bridges to its dense one.
///
/// # Errors
/// [`Error::Request`] for a run without bridges; otherwise those of [`Run::execute`],
/// [`ModelFiles::find`] and [`BridgeTrainer::new`].
pub fn train_bridges(run: &Run, start: StartFrom, watch: &mut dyn FnMut(Event<'_>)) -> Result<TrainResult> {
    let Some(bridge) = &run.config.bridge else {
        return Err(Error::Request("that run trains no bridges: continue it with `train --resume`".into()));
    };
    let dense = find(&bridge.dense).map_err(|e| Error::Request(format!("the dense model: {}", explain(&e))))?;
    BridgeTrainer::fits(&dense.config, &run.config.model)?;
    let estimate = estimate(&run.config, &dense.config, &run.device)?;
    let trainer = |trainer, checkpoint: Option<&Path>| {
        let dense = dense.load(WeightFormat::Sparse, &run.device)?;
        BridgeTrainer::new(trainer, dense, bridge.clone(), run.config.run.seed, checkpoint)
    };
    run.execute_with(start, estimate, || initial_model(run, bridge), trainer, watch)
}

/// The sparse model that training starts with.
fn initial_model(run: &Run, bridge: &BridgeConfig) -> Result<Model> {
    let Some(name) = &bridge.sparse else {
        return Model::new(run.config.model.clone(), run.config.run.seed, &run.device);
    };
    InitialModel::find(name)?.load(&run.config.model, &run.device)
}

/// Returns an error unless two models read the same tokens, as far as their files say.
fn expect_same_tokens((dense_name, dense): (&str, &ModelFiles), (name, sparse): (&str, &ModelFiles)) -> Result<()> {
    let (entries, others) = (dense.config.vocab_size, sparse.config.vocab_size);
    let mismatch = |how: String| {
        let (ours, theirs) = (tokenizer_of(dense), tokenizer_of(sparse));
        Error::Mismatch(format!(
            "{dense_name} has {entries} tokens ({ours}) and {name} {others} ({theirs}){how}: bridges join models that read \
             the same tokens"
        ))
    };
    if entries != others {
        return Err(mismatch(String::new()));
    }
    let (Some(ours), Some(theirs)) = (dense.load_tokenizer()?, sparse.load_tokenizer()?) else { return Ok(()) };
    let differs = |id: &u32| ours.token_text(*id) != theirs.token_text(*id);
    let known = ours.vocab_size().max(theirs.vocab_size()).min(entries) as u32;
    match (0..known).find(differs) {
        Some(id) => {
            let [a, b] = [&ours, &theirs].map(|tokenizer| notation::token(&tokenizer.token_text(id)));
            Err(mismatch(format!(", whose token {id} is {a} in one and {b} in the other")))
        }
        None => Ok(()),
    }
}

/// Where a model's tokenizer is, for messages.
fn tokenizer_of(files: &ModelFiles) -> String {
    files.tokenizer.as_ref().map_or_else(|| "without a tokenizer".into(), |path| path.display().to_string())
}

fn find(model: &str) -> Result<ModelFiles> {
    ModelFiles::find(model, &FindOptions { progress: true, ..FindOptions::default() })
}

/// The full path of a model on this machine, so that a run can be resumed from anywhere; other
/// names stay.
fn full_path(model: &str) -> Result<String> {
    if Path::new(model).exists() { Ok(absolute(Path::new(model))?.display().to_string()) } else { Ok(model.into()) }
}

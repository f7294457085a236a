//! Runs that start from a model: `train --init MODEL`.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use super::config::RunConfig;
use super::request::absolute;
use crate::device::Device;
use crate::formats::{FindOptions, ModelFiles};
use crate::model::{Kind, Model, ModelConfig, Parameters, WeightFormat};
use crate::{Error, Result};

/// A share of nonzero weights from which a model counts as dense.
const DENSE: f64 = 0.99;

/// A model that a run starts from.
pub struct InitialModel {
    name: String,
    files: ModelFiles,
}

impl InitialModel {
    /// Finds the model that `name` names: whatever commands take for a model.
    ///
    /// # Errors
    /// Those of [`ModelFiles::find`].
    pub fn find(name: &str) -> Result<Self> {
        let files = ModelFiles::find(name, &FindOptions { progress: true, ..FindOptions::default() })?;
        Ok(Self { name: name.into(), files })
    }

    /// Its configuration, without what only other programs use.
    pub fn config(&self) -> ModelConfig {
        self.files.config.without_unused()
    }

    /// Makes the settings those of a run that starts from it: its shapes, its tokenizer, and, if it
    /// is sparse, its densities from the first step to the last.
    ///
    /// # Errors
    /// Those of reading the weights.
    pub(super) fn adapt(&self, config: &mut RunConfig) -> Result<()> {
        config.model = self.config();
        config.data.tokenizer = self.files.tokenizer.as_deref().map(absolute).transpose()?;
        let schedule = &mut config.sparsity;
        let hidden = self.density(|kind| matches!(kind, Kind::Hidden(_)))?;
        if hidden < DENSE {
            (schedule.initial_density, schedule.target_density) = (hidden, hidden);
        }
        let embedding = self.density(|kind| kind == Kind::Embedding)?;
        if embedding < DENSE {
            (schedule.embed_initial_density, schedule.embed_target_density) = (embedding, embedding);
        } else if hidden < DENSE {
            schedule.embed_target_density = 1.0;
        }
        Ok(())
    }

    /// The largest density among the parameters of a kind, so that at this density all nonzeros of
    /// each survive: `floor(density · numel)` of them.
    fn density(&self, of: impl Fn(Kind) -> bool) -> Result<f64> {
        let mut density: f64 = 0.0;
        for (name, kind, _) in Parameters::shapes(&self.files.config) {
            if !of(kind) || !self.files.weights.entries().contains_key(&name) {
                continue;
            }
            let numbers = self.files.weights.read(&name)?.data;
            let (nonzeros, numel) = (numbers.iter().filter(|v| **v != 0.0).count() as f64, numbers.len() as f64);
            let share = nonzeros / numel.max(1.0);
            density = density.max(if (share * numel).floor() < nonzeros { share.next_up() } else { share });
        }
        Ok(if density > 0.0 { density.min(1.0) } else { 1.0 })
    }

    /// The full path of its files, so that a run can be resumed from anywhere, and that of a run's
    /// checkpoint, which stays unchanged when the run continues; the name of a model on the Hub.
    pub(super) fn full_name(&self) -> Result<String> {
        let path = Path::new(&self.name);
        if !path.exists() {
            return Ok(self.name.clone());
        }
        let folder = self.files.weights_path.parent().filter(|_| path.is_dir());
        Ok(absolute(folder.unwrap_or(path))?.display().to_string())
    }

    /// Returns an error if the settings describe another model.
    pub(super) fn check(&self, config: &RunConfig) -> Result<()> {
        if config.data.tokenizer.is_none() {
            let message = format!("{} comes without a tokenizer: name one with --tokenizer", self.name);
            return Err(Error::Tokenizer(message));
        }
        self.check_model(&config.model)
    }

    fn check_model(&self, config: &ModelConfig) -> Result<()> {
        let fields = |config: &ModelConfig| match serde_json::to_value(config.without_unused()) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        let (model, asked) = (fields(&self.files.config), fields(config));
        let all: BTreeSet<&String> = model.keys().chain(asked.keys()).collect();
        let Some(name) = all.into_iter().find(|name| model.get(*name) != asked.get(*name)) else { return Ok(()) };
        let value = |fields: &Map<String, Value>| fields.get(name).map_or("none".into(), Value::to_string);
        let message =
            format!("is {}, but {}, which training starts from, has {}", value(&asked), self.name, value(&model));
        Err(Error::config(format!("model.{name}"), message))
    }

    /// Its weights on `device`, for training with the settings `config`.
    ///
    /// # Errors
    /// [`Error::Config`] if the settings describe another model; those of [`ModelFiles::load`].
    pub fn load(&self, config: &ModelConfig, device: &Device) -> Result<Model> {
        self.check_model(config)?;
        let model = self.files.load(WeightFormat::Dense, device)?;
        Ok(Model { config: config.clone(), ..model })
    }
}

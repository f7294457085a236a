//! Everything a run needs to be repeated: the contents of its `config.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::bridge::BridgeConfig;
use crate::files::read_text;
use crate::model::ModelConfig;
pub use crate::ops::grad_rms::Rule as GradRms;
use crate::settings::{self, SettingRow};
use crate::sparsity::{LrDecay, Schedule, Sharkfin};
use crate::text::source::{DEFAULT_FIELD, Source};
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result};

/// The optimizer and the length of training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Optimizer steps.
    pub steps: u64,
    /// Sequences in one forward pass; each has `model.block_size` tokens.
    pub batch_size: usize,
    /// Forward passes whose gradients are averaged into one step.
    pub accumulate: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Fraction of training spent warming up.
    pub warmup_frac: f64,
    /// What the learning rate does after warming up.
    #[serde(default)]
    pub lr_decay: LrDecay,
    /// Whether the learning rate grows as the density falls.
    pub sharkfin: bool,
    /// Adam's decay of the first moment.
    pub beta1: f64,
    /// Adam's decay of the second moment.
    pub beta2: f64,
    /// Adam's epsilon.
    pub eps: f64,
    /// Decoupled weight decay of the matrices, times the learning rate.
    pub weight_decay: f64,
    /// How gradients are scaled.
    pub grad_rms: GradRms,
    /// Whether position embeddings are trained; otherwise they stay zero.
    pub train_positions: bool,
}

impl OptimizerConfig {
    /// Learning rate at `step`.
    pub(crate) fn lr_at(&self, step: u64, schedule: &Schedule) -> f64 {
        let Self { lr, warmup_frac, lr_decay: decay, sharkfin, .. } = *self;
        Sharkfin { lr, warmup_frac, decay, sharkfin }.at(step, self.steps, schedule)
    }
}

/// What is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Files, folders and data sets (see [`Source`]); none: the built-in generator of simple
    /// Python.
    pub paths: Vec<PathBuf>,
    /// The field or column that has the text.
    #[serde(default = "default_field", skip_serializing_if = "is_default_field")]
    pub text_field: String,
    /// Training tokens in a shard, of files that are tokenized while the model trains; none: all of
    /// them are before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard_tokens: Option<u64>,
    /// Whether data sets of the Hub are taken from its cache only; not kept with the settings.
    #[serde(skip)]
    pub offline: bool,
    /// A `tokenizer.json`; none: one of `model.vocab_size` entries is trained on the data.
    pub tokenizer: Option<PathBuf>,
    /// Documents that the built-in generator makes.
    pub generated_documents: u64,
    /// The version of the generator, so that later ones change neither presets nor runs.
    #[serde(default = "unnamed_version")]
    pub generated_version: u32,
    /// Fraction of the documents held out for validation.
    pub val_fraction: f64,
}

fn default_field() -> String {
    DEFAULT_FIELD.into()
}

fn is_default_field(field: &str) -> bool {
    field == DEFAULT_FIELD
}

impl DataConfig {
    /// What the paths name.
    pub(crate) fn source(&self) -> Source {
        Source::new(&self.paths).with_field(&self.text_field).offline(self.offline)
    }
}

/// What the runs trained on whose `config.toml` names no version.
fn unnamed_version() -> u32 {
    3
}

/// What happens besides the optimizer steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeConfig {
    /// The model that training starts from; none: random weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<String>,
    /// `auto`, `cpu`, `gpu` or `gpu:<index or part of a name>`.
    pub device: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Steps between lines of metrics. Losses are read back from the device as often.
    pub log_every: u64,
    /// Steps between evaluations; 0: only at the end.
    pub eval_every: u64,
    /// Steps between lines of metrics with norms of every parameter; 0: never.
    #[serde(default)]
    pub norms_every: u64,
    /// Sequences of held-out data in an evaluation.
    pub eval_sequences: usize,
    /// Steps between checkpoints; 0: only at the end.
    pub checkpoint_every: u64,
    /// Checkpoints kept, the newest ones; 0 keeps all.
    pub keep_checkpoints: usize,
    /// Sampled lines at the end.
    pub samples: usize,
    /// Whether the end says which tasks the model does, and looks for a circuit for half a minute.
    #[serde(default)]
    pub tasks: bool,
}

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Shapes and variants.
    pub model: ModelConfig,
    /// Optimizer and length.
    pub train: OptimizerConfig,
    /// Densities.
    pub sparsity: Schedule,
    /// What is read.
    pub data: DataConfig,
    /// What happens besides.
    pub run: RuntimeConfig,
    /// The dense model that bridges are built to, if any are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<BridgeConfig>,
}

impl RunConfig {
    /// Reads a run's `config.toml`, which must be complete.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::File`] saying where it is wrong.
    pub fn load(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        let failed = |e: toml::de::Error| Error::file(path, e.to_string());
        let mut table: Table = text.parse().map_err(failed)?;
        // Errors of the text know the line.
        let config = if modernize(&mut table) { table.try_into() } else { toml::from_str::<Self>(&text) };
        let config = config.map_err(failed)?;
        config.validate()?;
        Ok(config)
    }

    /// The text of `config.toml`.
    ///
    /// # Errors
    /// [`Error::Request`] if a value cannot be written, which no valid configuration has.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self).map_err(|e| Error::Request(format!("config.toml: {e}")))
    }

    /// Overlays the settings of a TOML file, complete or not, and returns the full names of what it
    /// sets. One that is complete, as a run's `config.toml`, replaces all.
    ///
    /// # Errors
    /// [`Error::Config`] naming a setting that does not exist or has an impossible value.
    pub fn overlay_file(&mut self, path: &Path) -> Result<Vec<String>> {
        let mut table: Table =
            read_text(path)?.parse().map_err(|e: toml::de::Error| Error::file(path, e.to_string()))?;
        modernize(&mut table);
        if let Some(whole) = Self::written_whole(&table) {
            *self = whole;
            return Ok(leaves(table).into_iter().map(|(key, _)| key).collect());
        }
        let mut set = |(key, value): (String, Value)| {
            let key = self.row(&key)?.key;
            self.set_value(&key, value)?;
            Ok(key)
        };
        leaves(table).into_iter().map(&mut set).collect()
    }

    /// The configuration that `table` is all of, as a run's `config.toml` is. What such a file
    /// leaves out is absent, and not to be read from another source.
    fn written_whole(table: &Table) -> Option<Self> {
        let whole: Self = table.clone().try_into().ok()?;
        let known = |key: &String| !NEWER.contains(&key.as_str()) && !key.starts_with("bridge.");
        let keys = |table: Table| leaves(table).into_iter().map(|(key, _)| key).filter(known).collect::<BTreeSet<_>>();
        (keys(Table::try_from(&whole).ok()?) == keys(table.clone())).then_some(whole)
    }

    /// Sets one setting from `key=value`, as `train.lr=0.02` or, where no other section has the
    /// name, `lr=0.02`. Values are those of TOML, or text without quotes. Optional ones, such as
    /// `afrac`, take `none`.
    ///
    /// # Errors
    /// [`Error::Config`] naming a setting that does not exist, with the one that may be meant, or
    /// whose value is impossible.
    pub fn set(&mut self, assignment: &str) -> Result<()> {
        let (key, text) = settings::parts(assignment)?;
        self.set_value(key, settings::value(text))
    }

    /// Does all assignments of each text, as `steps=600 lr=0.02`, and returns the full names of
    /// what they set.
    ///
    /// # Errors
    /// Those of [`RunConfig::set`].
    pub fn set_all<T: AsRef<str>>(&mut self, texts: &[T]) -> Result<Vec<String>> {
        let mut named = Vec::new();
        for assignment in texts.iter().flat_map(|text| settings::split(text.as_ref())) {
            self.set(&assignment)?;
            named.push(self.row(settings::parts(&assignment)?.0)?.key);
        }
        Ok(named)
    }

    fn set_value(&mut self, key: &str, value: Value) -> Result<()> {
        let row = self.row(key)?;
        let value = match value {
            Value::Boolean(flag) if key.ends_with(DRAW_SPARSE) => Value::Boolean(!flag),
            value => value,
        };
        let bad = |e: String| Error::config(&row.key, e.lines().next().unwrap_or_default().to_string());
        let mut table = Table::try_from(&*self).map_err(|e| bad(e.to_string()))?;
        settings::put(&mut table, &row, value)?;
        *self = table.try_into().map_err(|e: toml::de::Error| bad(e.to_string()))?;
        Ok(())
    }

    /// The setting of that full or short name. Those of bridges have no short names where there are
    /// none.
    fn row(&self, key: &str) -> Result<SettingRow> {
        let mut rows = super::settings::rows();
        // Names of earlier versions.
        let key = match key.strip_prefix("bridge.").or(key.strip_prefix("model.")).unwrap_or(key) {
            "n_mlp" => "model.d_mlp",
            DRAW_SPARSE => "bridge.detach_target",
            _ => key,
        };
        let full = rows.iter().position(|row| row.key == key);
        let short = |row: &SettingRow| match row.key.strip_prefix("bridge.") {
            Some(name) => self.bridge.is_some() && name.strip_prefix("coefficients.").unwrap_or(name) == key,
            None => row.key.split_once('.').is_some_and(|(_, name)| name == key),
        };
        match full.or_else(|| rows.iter().position(short)) {
            Some(at) => Ok(rows.swap_remove(at)),
            None => Err(settings::unknown(key, rows.iter().map(|row| row.key.as_str()))),
        }
    }

    /// The settings that a training step depends on, by name: a run continues only with those that
    /// it began with. What is said of the data and of other models are places, which may change;
    /// what is in them is checked by its hash. The model's are in its own configuration.
    pub(crate) fn step_settings(&self) -> Result<BTreeMap<String, serde_json::Value>> {
        let sections = [
            ("train", serde_json::to_value(&self.train)),
            ("sparsity", serde_json::to_value(&self.sparsity)),
            ("bridge", serde_json::to_value(&self.bridge)),
        ];
        let mut settings = BTreeMap::from([("run.seed".to_string(), self.run.seed.into())]);
        for (section, fields) in sections {
            let fields = fields.map_err(|e| Error::Request(format!("{section}: {e}")))?;
            if let serde_json::Value::Object(fields) = fields {
                settings.extend(fields.into_iter().map(|(key, value)| (format!("{section}.{key}"), value)));
            }
        }
        settings.retain(|key, _| key != "bridge.dense" && key != "bridge.sparse");
        Ok(settings)
    }

    /// Tokens in one optimizer step.
    pub fn tokens_per_step(&self) -> u64 {
        (self.train.batch_size * self.train.accumulate * self.model.block_size) as u64
    }

    /// Returns an error if a value is impossible, or is one that training would not honour, naming
    /// the setting.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn validate(&self) -> Result<()> {
        super::settings::check(self)
    }

    /// What of the settings cannot come about or has no effect, a line each. Training does what it
    /// can.
    pub fn notes(&self) -> Vec<String> {
        super::settings::notes(self)
    }

    /// Makes the model's vocabulary that of the tokenizer which `data.tokenizer` names. `given`:
    /// the vocabulary was asked for, too.
    ///
    /// # Errors
    /// Those of [`Tokenizer::load`], and [`Error::Config`] if both are given and differ.
    pub fn fit_vocabulary(&mut self, given: bool) -> Result<()> {
        let Some(path) = &self.data.tokenizer else { return Ok(()) };
        let (entries, vocabulary) = (Tokenizer::load(path)?.vocab_size(), self.model.vocab_size);
        if given && entries != vocabulary {
            return Err(other_vocabulary(vocabulary, entries));
        }
        self.model.vocab_size = entries;
        Ok(())
    }
}

/// The error about a vocabulary that is not the tokenizer's.
pub(crate) fn other_vocabulary(vocabulary: usize, entries: usize) -> Error {
    Error::config(
        "model.vocab_size",
        format!(
            "is {vocabulary}, but the tokenizer has {entries} entries; `--set model.vocab_size={entries}` matches it"
        ),
    )
}

/// Settings that the runs of earlier versions lack.
const NEWER: [&str; 7] = [
    "data.generated_version",
    "train.lr_decay",
    "sparsity.initial_density",
    "sparsity.embed_initial_density",
    "sparsity.anneal",
    "sparsity.anneal_exponent",
    "run.norms_every",
];

/// The opposite of `bridge.detach_target` in settings of earlier versions.
const DRAW_SPARSE: &str = "draw_sparse";

/// Replaces settings of earlier versions; returns whether there were any.
fn modernize(table: &mut Table) -> bool {
    let Some(bridge) = table.get_mut("bridge").and_then(Value::as_table_mut) else { return false };
    let Some(flag) = bridge.remove(DRAW_SPARSE) else { return false };
    bridge.insert("detach_target".into(), flag.as_bool().map_or(flag, |flag| Value::Boolean(!flag)));
    true
}

/// All values that are no sections, by their full names.
pub fn leaves(table: Table) -> Vec<(String, Value)> {
    let mut leaves = Vec::new();
    flatten("", &Value::Table(table), &mut leaves);
    leaves
}

fn flatten(prefix: &str, value: &Value, leaves: &mut Vec<(String, Value)>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&path, value, leaves);
            }
        }
        value => leaves.push((prefix.to_string(), value.clone())),
    }
}

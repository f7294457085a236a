//! Everything a run needs to be repeated: the contents of its `config.toml`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::bridge::BridgeConfig;
use crate::files::read_text;
use crate::model::ModelConfig;
use crate::ops::grad_rms;
use crate::sparsity::{Schedule, Sharkfin};
use crate::{Error, Result};

/// How gradients are scaled before Adam (method: section 2, step 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GradRms {
    /// Divide by (rms + 1e-5), always.
    Normalize,
    /// Divide by the rms where it is larger than 1.
    Clip,
    /// Leave them.
    None,
}

impl From<GradRms> for grad_rms::Rule {
    fn from(rule: GradRms) -> Self {
        match rule {
            GradRms::Normalize => Self::Normalize,
            GradRms::Clip => Self::Clip,
            GradRms::None => Self::None,
        }
    }
}

/// The optimizer and the length of training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimizer {
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

impl Optimizer {
    /// Learning rate at `step`.
    pub fn lr_at(&self, step: u64, schedule: &Schedule) -> f64 {
        Sharkfin { lr: self.lr, warmup_frac: self.warmup_frac, sharkfin: self.sharkfin }.at(step, self.steps, schedule)
    }
}

/// What is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Files and folders (`.py`, `.txt`, `.jsonl`); none: the built-in generator of simple Python.
    pub paths: Vec<PathBuf>,
    /// A `tokenizer.json`; none: one of `model.vocab_size` entries is trained on the data.
    pub tokenizer: Option<PathBuf>,
    /// Documents that the built-in generator makes.
    pub generated_documents: u64,
    /// Fraction of the documents held out for validation.
    pub val_fraction: f64,
}

/// What happens beside the optimizer steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// `auto`, `cpu`, `gpu` or `gpu:<index or part of a name>`.
    pub device: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Steps between lines of metrics. Losses are read back from the device as often.
    pub log_every: u64,
    /// Steps between evaluations; 0: only at the end.
    pub eval_every: u64,
    /// Sequences of held-out data in an evaluation.
    pub eval_sequences: usize,
    /// Steps between checkpoints; 0: only at the end.
    pub checkpoint_every: u64,
    /// Checkpoints kept, the newest ones; 0 keeps all.
    pub keep_checkpoints: usize,
    /// Sampled lines at the end.
    pub samples: usize,
}

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Shapes and variants.
    pub model: ModelConfig,
    /// Optimizer and length.
    pub train: Optimizer,
    /// Densities.
    pub sparsity: Schedule,
    /// What is read.
    pub data: Data,
    /// What happens beside.
    pub run: Run,
    /// The dense model that bridges are built to, if any are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<BridgeConfig>,
}

/// Settings that can be absent; the value `none` makes them so.
const OPTIONAL: [&str; 7] = [
    "model.d_head",
    "model.d_mlp",
    "model.afrac",
    "model.d_pos_emb",
    "data.tokenizer",
    "bridge.sparse",
    "bridge.kl_top",
];

/// More layers than any machine trains; bounded before anything is made per layer.
const MAX_LAYERS: usize = 10_000;

/// More tokens in an optimizer step than any machine takes; their sequences are held in memory.
const MAX_TOKENS_PER_STEP: u128 = 1 << 32;

impl RunConfig {
    /// Reads a run's `config.toml`, which must be complete.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::File`] saying where it is wrong.
    pub fn load(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        let config: Self = toml::from_str(&text).map_err(|e| Error::file(path, e.to_string()))?;
        config.validate()?;
        Ok(config)
    }

    /// The text of `config.toml`.
    ///
    /// # Errors
    /// [`Error::Text`] if a value cannot be written, which no valid configuration has.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self).map_err(|e| Error::Text(format!("config.toml: {e}")))
    }

    /// Overlays the settings of a TOML file, complete or not. One that is complete, as a run's `config.toml`, replaces all.
    ///
    /// # Errors
    /// [`Error::Config`] naming a setting that does not exist or has an impossible value.
    pub fn overlay_file(&mut self, path: &Path) -> Result<()> {
        let table: Table = read_text(path)?.parse().map_err(|e: toml::de::Error| Error::file(path, e.to_string()))?;
        if let Some(whole) = Self::written_whole(&table) {
            *self = whole;
            return Ok(());
        }
        let mut leaves = Vec::new();
        flatten("", &Value::Table(table), &mut leaves);
        leaves.into_iter().try_for_each(|(key, value)| self.set_value(&key, value))
    }

    /// The configuration that `table` is all of, as a run's `config.toml` is. What such a file leaves out is absent, and not
    /// to be taken from elsewhere.
    fn written_whole(table: &Table) -> Option<Self> {
        let whole: Self = table.clone().try_into().ok()?;
        let keys = |table: Table| {
            let mut leaves = Vec::new();
            flatten("", &Value::Table(table), &mut leaves);
            leaves.into_iter().map(|(key, _)| key).collect::<BTreeSet<_>>()
        };
        (keys(Table::try_from(&whole).ok()?) == keys(table.clone())).then_some(whole)
    }

    /// Sets one setting from `key=value`, as `train.lr=0.02` or, where no other section has the name, `lr=0.02`. Optional
    /// ones, such as `afrac`, take `none`.
    ///
    /// # Errors
    /// [`Error::Config`] naming a setting that does not exist or has an impossible value.
    pub fn set(&mut self, assignment: &str) -> Result<()> {
        let (key, text) = assignment
            .split_once('=')
            .ok_or_else(|| Error::config(assignment, "settings are given as key=value".to_string()))?;
        let (key, text) = (key.trim(), text.trim());
        let value = match format!("v = {text}").parse::<Table>() {
            Ok(mut table) => table.remove("v").unwrap_or_else(|| Value::String(text.into())),
            Err(_) => Value::String(text.into()),
        };
        self.set_value(key, value)
    }

    fn set_value(&mut self, key: &str, value: Value) -> Result<()> {
        let mut sections = vec!["model", "train", "sparsity", "data", "run"];
        if self.bridge.is_some() {
            sections.extend(["bridge", "bridge.coefficients"]);
        }
        if key.contains('.') {
            return self.set_exact(key, value);
        }
        let mut last = None;
        for section in &sections {
            match self.set_exact(&format!("{section}.{key}"), value.clone()) {
                Ok(()) => return Ok(()),
                Err(error) if !error.to_string().contains("unknown field") => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or_else(
            || Error::config(key, "unknown"),
            |_| Error::config(key, format!("no section ({}) has a setting of that name", sections.join(", "))),
        ))
    }

    fn set_exact(&mut self, key: &str, value: Value) -> Result<()> {
        let bad = |e: String| Error::config(key, e.lines().next().unwrap_or_default().to_string());
        let mut root = Table::try_from(&*self).map_err(|e| bad(e.to_string()))?;
        let mut table = &mut root;
        let mut parts = key.split('.').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                // A whole number does where a fraction is expected.
                let value = match (table.get(part), &value) {
                    (Some(Value::Float(_)), Value::Integer(i)) => Value::Float(*i as f64),
                    _ => value,
                };
                match OPTIONAL.contains(&key) && value.as_str() == Some("none") {
                    true => table.remove(part),
                    false => table.insert(part.to_string(), value),
                };
                break;
            }
            table = match table.entry(part.to_string()).or_insert_with(|| Value::Table(Table::new())) {
                Value::Table(inner) => inner,
                _ => return Err(Error::config(key, format!("`{part}` is not a section"))),
            };
        }
        *self = root.try_into().map_err(|e: toml::de::Error| bad(e.to_string()))?;
        Ok(())
    }

    /// Tokens in one optimizer step.
    pub fn tokens_per_step(&self) -> u64 {
        (self.train.batch_size * self.train.accumulate * self.model.block_size) as u64
    }

    /// Complains about impossible values, naming the setting.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn validate(&self) -> Result<()> {
        self.model.validate()?;
        self.sparsity.validate()?;
        self.bridge.as_ref().map_or(Ok(()), BridgeConfig::validate)?;
        let t = &self.train;
        if self.model.n_layer > MAX_LAYERS {
            let message = format!("{} is absurdly large (at most {MAX_LAYERS})", self.model.n_layer);
            return Err(Error::config("model.n_layer", message));
        }
        let tokens = [t.batch_size, t.accumulate, self.model.block_size]
            .iter()
            .fold(1, |product: u128, &factor| product.saturating_mul(factor as u128));
        if tokens > MAX_TOKENS_PER_STEP {
            let message = format!(
                "with train.batch_size and model.block_size makes {tokens} tokens a step (at most {MAX_TOKENS_PER_STEP})"
            );
            return Err(Error::config("train.accumulate", message));
        }
        let at_least_one = [
            ("train.steps", t.steps),
            ("train.batch_size", t.batch_size as u64),
            ("train.accumulate", t.accumulate as u64),
            ("run.log_every", self.run.log_every),
            ("run.eval_sequences", self.run.eval_sequences as u64),
        ];
        for (key, value) in at_least_one {
            if value == 0 {
                return Err(Error::config(key, "must be at least 1"));
            }
        }
        let in_range = |key: &str, value: f64, ok: bool, range: &str| match ok && value.is_finite() {
            true => Ok(()),
            false => Err(Error::config(key, format!("{value} is not {range}"))),
        };
        in_range("train.lr", t.lr, t.lr > 0.0, "a number above 0")?;
        in_range("train.warmup_frac", t.warmup_frac, (0.0..=1.0).contains(&t.warmup_frac), "in [0, 1]")?;
        in_range("train.beta1", t.beta1, (0.0..1.0).contains(&t.beta1), "in [0, 1)")?;
        in_range("train.beta2", t.beta2, (0.0..1.0).contains(&t.beta2), "in [0, 1)")?;
        in_range("train.eps", t.eps, t.eps > 0.0, "above 0")?;
        in_range("train.weight_decay", t.weight_decay, t.weight_decay >= 0.0, "a number of at least 0")?;
        let v = self.data.val_fraction;
        in_range("data.val_fraction", v, v > 0.0 && v < 1.0, "in (0, 1)")?;
        if self.model.block_size < 2 {
            return Err(Error::config("model.block_size", "training needs at least 2 tokens"));
        }
        if self.data.paths.is_empty() && self.data.generated_documents < 2 {
            return Err(Error::config("data.generated_documents", "must be at least 2, one to hold out"));
        }
        Ok(())
    }
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

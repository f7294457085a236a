//! All settings of a run: what each may be, and what they mean together.

use std::ops::Bound;

use super::bridge::BridgeConfig;
use super::bridge_loss::{Coefficients, Ramps};
use super::config::{DataConfig, OptimizerConfig, RunConfig, RuntimeConfig};
use crate::model::{Kind, MODEL_SETTINGS, Parameters, SiteKind};
use crate::ops::weight_topk::Neurons;
use crate::settings::{self, Setting, SettingRow, Takes, above, below, between, grouped, numeric, optional, within};
use crate::sparsity::{SPARSITY_SETTINGS, keep_counts};
use crate::text::python;
use crate::{Error, Result};

/// More tokens in an optimizer step than any machine takes; their sequences are held in memory.
const MAX_TOKENS_PER_STEP: u64 = 1 << 32;

/// Steps, sequences, documents: more than anyone counts to.
const MANY: u64 = 1_000_000_000;

/// What a number may be that becomes a divisor in 32 bits.
const TINY: f64 = 1e-30;

const TRAIN: &[Setting<OptimizerConfig>] = &[
    numeric!(steps, Takes::Count(1, MANY), "optimizer steps"),
    numeric!(batch_size, Takes::Count(1, MAX_TOKENS_PER_STEP), "sequences in a forward pass"),
    numeric!(accumulate, Takes::Count(1, MAX_TOKENS_PER_STEP), "forward passes in a step"),
    numeric!(lr, above(0.0, 1e30), "peak learning rate"),
    numeric!(warmup_frac, within(0.0, 1.0), "share of training spent warming up"),
    Setting::other(
        "lr_decay",
        Takes::OneOf(&["linear", "cosine", "constant"]),
        "of the learning rate after warming up",
    ),
    Setting::other("sharkfin", Takes::Flag, "the learning rate grows as the density falls"),
    numeric!(beta1, below(0.0, 1.0), "Adam's decay of the first moment"),
    numeric!(beta2, below(0.0, 1.0), "Adam's decay of the second moment"),
    numeric!(eps, within(TINY, 1e3), "Adam's epsilon"),
    numeric!(weight_decay, within(0.0, 1e3), "decay of the matrices, times the learning rate"),
    Setting::other("grad_rms", Takes::OneOf(&["normalize", "clip", "none"]), "how gradients are scaled"),
    Setting::other("train_positions", Takes::Flag, "position embeddings are trained; otherwise they stay zero"),
];

/// The versions of generated Python.
const VERSIONS: Takes = Takes::Count(python::OLDEST_VERSION as u64, python::VERSION as u64);

const DATA: &[Setting<DataConfig>] = &[
    Setting::other(
        "paths",
        Takes::Texts("a path or a list of paths"),
        "files, folders, data sets; [] for generated Python",
    ),
    Setting::other("text_field", Takes::Text("a name"), "the field or column that has the text"),
    optional(numeric!(shard_tokens, Takes::Count(1 << 10, 1 << 40), "tokens in a shard of a stream; none: no stream")),
    optional(Setting::other("tokenizer", Takes::Text("a path"), "a tokenizer.json; none: one is trained")),
    numeric!(generated_documents, Takes::Count(0, MANY), "documents of generated Python"),
    Setting::number("generated_version", VERSIONS, "version of generated Python", |d| {
        u64::from(d.generated_version).into()
    }),
    numeric!(val_fraction, between(0.0, 1.0), "share of documents held out"),
];

const RUN: &[Setting<RuntimeConfig>] = &[
    optional(Setting::other("init", Takes::Text("a model"), "the model to start from; none: random weights")),
    Setting::other("device", Takes::Text("auto, cpu, gpu, gpu:INDEX or gpu:PART-OF-A-NAME"), "where it runs"),
    // TOML has no larger numbers.
    numeric!(seed, Takes::Count(0, i64::MAX as u64), "of everything random"),
    numeric!(log_every, Takes::Count(1, MANY), "steps between lines of metrics"),
    numeric!(eval_every, Takes::Count(0, MANY), "steps between evaluations; 0: at the end"),
    numeric!(norms_every, Takes::Count(0, MANY), "steps between norms of every parameter in the metrics; 0: never"),
    numeric!(eval_sequences, Takes::Count(1, MANY), "sequences in an evaluation"),
    numeric!(checkpoint_every, Takes::Count(0, MANY), "steps between checkpoints; 0: at the end"),
    numeric!(keep_checkpoints, Takes::Count(0, MANY), "checkpoints kept; 0: all"),
    numeric!(samples, Takes::Count(0, 10_000), "texts sampled at the end"),
    Setting::other(
        "tasks",
        Takes::Flag,
        "at the end, say which tasks it does and look for a circuit for half a minute",
    ),
];

/// How sharp thresholds may be.
const SHARPNESS: Takes = Takes::Pair(Bound::Included(1e-3), Bound::Included(1e6));

const BRIDGE: &[Setting<BridgeConfig>] = &[
    Setting::other("dense", Takes::Text("a model"), "the dense model that bridges are built to"),
    optional(Setting::other("sparse", Takes::Text("a model"), "the sparse model to start from; none: a new one")),
    Setting::other("encoder", Takes::OneOf(&["abstopk", "threshold"]), "what encoders keep: a share, or by thresholds"),
    numeric!(encoder_afrac, above(0.0, 1.0), "share of channels that encoders keep, if abstopk"),
    numeric!(sharpness, SHARPNESS, "of thresholds in training: at first, and last"),
    numeric!(sharpness_start_frac, within(0.0, 1.0), "share of training at which thresholds start to sharpen"),
    numeric!(sharpness_stop_frac, within(0.0, 1.0), "share of training from which thresholds are hard"),
    numeric!(lr, above(0.0, 1e3), "peak learning rate of the bridges"),
    optional(numeric!(warmup_frac, within(0.0, 1.0), "share of training spent warming them up; none: the run's")),
    numeric!(eps, within(TINY, 1e3), "epsilon of the bridges' Adam"),
    Setting::other("detach_target", Takes::Flag, "encoders' errors leave the sparse model alone"),
    optional(numeric!(
        kl_top,
        Takes::Count(1, 1 << 24),
        "most probable tokens that dense predictions are cut to; none: all"
    )),
    Setting::other("kl_top_renormalize", Takes::Flag, "the others are cut to the same tokens"),
];

/// All settings by their full names, those of bridges last. Where two have one short name, the
/// first is meant by it.
pub fn rows() -> Vec<SettingRow> {
    let mut all = settings::rows("model", MODEL_SETTINGS);
    all.extend(settings::rows("train", TRAIN));
    all.extend(settings::rows("sparsity", SPARSITY_SETTINGS));
    all.extend(settings::rows("data", DATA));
    all.extend(settings::rows("run", RUN));
    all.extend(settings::rows("bridge", BRIDGE));
    all.extend(Coefficients::rows());
    all.extend(Ramps::rows());
    all
}

/// Returns an error unless the settings of bridges are possible.
pub(crate) fn check_bridge(bridge: &BridgeConfig) -> Result<()> {
    if bridge.dense.is_empty() {
        let message = "names no model to build bridges to: `train bridges --dense MODEL` does";
        return Err(Error::config("bridge.dense", message));
    }
    settings::check("bridge", BRIDGE, bridge)?;
    let (start, stop) = (bridge.sharpness_start_frac, bridge.sharpness_stop_frac);
    if start > stop {
        let message =
            format!("{stop} is less than bridge.sharpness_start_frac, {start}: thresholds sharpen in between");
        return Err(Error::config("bridge.sharpness_stop_frac", message));
    }
    bridge.coefficients.validate()?;
    bridge.ramps.validate()
}

/// Returns an error unless a run can be made of these settings.
pub fn check(config: &RunConfig) -> Result<()> {
    config.model.validate()?;
    config.model.check_trainable()?;
    config.sparsity.validate()?;
    config.bridge.as_ref().map_or(Ok(()), check_bridge)?;
    settings::check("train", TRAIN, &config.train)?;
    settings::check("data", DATA, &config.data)?;
    settings::check("run", RUN, &config.run)?;
    let RunConfig { model, train, data, .. } = config;
    let tokens = [train.batch_size, train.accumulate, model.block_size]
        .iter()
        .fold(1, |product: u128, &factor| product.saturating_mul(factor as u128));
    if tokens > MAX_TOKENS_PER_STEP.into() {
        let message = format!(
            "train.batch_size · train.accumulate · model.block_size = {tokens} tokens a step (at most {MAX_TOKENS_PER_STEP})"
        );
        let key = if train.accumulate > 1 { "train.accumulate" } else { "train.batch_size" };
        return Err(Error::config(key, message));
    }
    if model.block_size < 2 {
        return Err(Error::config("model.block_size", "training needs at least 2 tokens"));
    }
    if let Some(tokens) = data.shard_tokens {
        if data.paths.is_empty() {
            return Err(Error::config(
                "data.shard_tokens",
                "streams files and data sets, not generated Python: name data",
            ));
        }
        if tokens < model.block_size as u64 {
            let message = format!("a sequence is {} tokens, but a shard only {tokens}", model.block_size);
            return Err(Error::config("data.shard_tokens", message));
        }
    }
    if data.paths.is_empty() && data.generated_documents < 2 {
        return Err(Error::config("data.generated_documents", "must be at least 2, one to hold out"));
    }
    Ok(())
}

/// What of the settings cannot come about or has no effect, a line each. Training does what it can.
pub(crate) fn notes(config: &RunConfig) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(dead_neurons(config));
    notes.extend(emptied(config));
    notes.extend(idle(config));
    notes
}

/// The first matrix in which not every neuron can keep `min_alive` weights.
fn dead_neurons(config: &RunConfig) -> Option<String> {
    let least = config.sparsity.min_alive;
    let shapes = Parameters::shapes(&config.model);
    let counts = keep_counts(&shapes, &config.sparsity);
    let short = shapes.iter().zip(counts).filter_map(|((name, kind, shape), kept)| {
        let Kind::Hidden(neurons) = kind else { return None };
        let (count, each, what) = match (neurons, &shape[..]) {
            (Neurons::Rows, &[rows, columns]) => (rows, columns, "rows"),
            (Neurons::Columns, &[rows, columns]) => (columns, rows, "columns"),
            _ => return None,
        };
        // A neuron cannot keep more weights than it has.
        let needed = count.saturating_mul(least.min(each));
        (kept < needed).then_some((name, kept, needed, count, what))
    });
    let short: Vec<_> = short.collect();
    let (name, kept, needed, count, what) = *short.first()?;
    let others = match short.len() {
        1 => String::new(),
        n => format!(" (and in {} more)", n - 1),
    };
    Some(format!(
        "sparsity.min_alive = {least} cannot hold in {name}{others}: its {count} {what} need {} weights, and \
         sparsity.target_density = {} leaves {}; some {what} will have fewer, or none",
        grouped(needed as u64),
        config.sparsity.target_density,
        grouped(kept as u64)
    ))
}

/// Rows and columns that keep no weight.
fn emptied(config: &RunConfig) -> Vec<String> {
    let model = &config.model;
    let mut notes: Vec<String> = SiteKind::all()
        .filter(|&kind| model.topk(kind) == Some(0))
        .map(|kind| {
            let (afrac, width) = (model.afrac.unwrap_or_default(), kind.width(model));
            let site = kind.topk_name().unwrap_or_default();
            format!("model.afrac = {afrac} keeps none of the {width} entries at {site}: nothing passes there")
        })
        .collect();
    let shapes = Parameters::shapes(model);
    let counts = keep_counts(&shapes, &config.sparsity);
    let none = shapes.iter().zip(counts).find(|(_, kept)| *kept == 0);
    notes.extend(none.map(|((name, _, shape), _)| format!("the target density leaves no weight of {name} {shape:?}")));
    notes
}

/// Settings that have no effect because of others.
fn idle(config: &RunConfig) -> Vec<String> {
    let RunConfig { model, train, sparsity, .. } = config;
    let places = model.afrac_loctypes.names().count();
    let all = [
        (model.afrac.is_some() && places == 0, "model.afrac has no effect: model.afrac_loctypes names no site"),
        (sparsity.sparse_biases && !model.bias, "sparsity.sparse_biases has no effect: model.bias is false"),
        (
            model.d_pos_emb.is_some() && !train.train_positions,
            "model.d_pos_emb only adds zeros: position embeddings stay zero unless train.train_positions is true",
        ),
        (
            config.bridge.as_ref().is_some_and(|bridge| bridge.kl_top_renormalize && bridge.kl_top.is_none()),
            "bridge.kl_top_renormalize has no effect: bridge.kl_top is none",
        ),
    ];
    all.into_iter().filter(|(is, _)| *is).map(|(_, text)| text.to_string()).collect()
}

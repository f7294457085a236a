//! Runs of prompts: activations, interventions, losses and gradients, without training.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Batch, Hooks, LossOutput, Model, NoHooks, QueryPositions, Recorder, Site, SiteKind, Weights};
use crate::device::Tensor;
use crate::files::HostTensor;
use crate::ops::logit_diff::TokenPairs;
use crate::tape::{Tape, Var};
use crate::{Error, Result};

/// Token sequences of any lengths that run together; made of one sequence or of a list of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompts(pub Vec<Vec<u32>>);

impl From<&[u32]> for Prompts {
    fn from(prompt: &[u32]) -> Self {
        Self(vec![prompt.to_vec()])
    }
}

impl<const N: usize> From<&[u32; N]> for Prompts {
    fn from(prompt: &[u32; N]) -> Self {
        Self(vec![prompt.to_vec()])
    }
}

impl From<&Vec<u32>> for Prompts {
    fn from(prompt: &Vec<u32>) -> Self {
        Self(vec![prompt.clone()])
    }
}

impl From<&[Vec<u32>]> for Prompts {
    fn from(prompts: &[Vec<u32>]) -> Self {
        Self(prompts.to_vec())
    }
}

impl From<&Vec<Vec<u32>>> for Prompts {
    fn from(prompts: &Vec<Vec<u32>>) -> Self {
        Self(prompts.clone())
    }
}

/// Values at every position of every prompt: `(B, T, width)`, where T is the length of the longest
/// prompt.
#[derive(Clone)]
pub struct PromptTensor {
    /// The values; those after a prompt's end mean nothing.
    pub tensor: Tensor,
    /// The length of each prompt.
    pub lengths: Arc<[usize]>,
}

impl PromptTensor {
    /// All values `(B, T, width)`, zeros after a prompt's end.
    ///
    /// # Errors
    /// Those of the device.
    pub fn read(&self) -> Result<HostTensor> {
        let mut host = HostTensor { shape: self.tensor.shape().to_vec(), data: self.tensor.read()? };
        let row = host.data.len() / self.lengths.len().max(1);
        let width = host.shape.last().copied().unwrap_or(1);
        for (values, length) in host.data.chunks_exact_mut(row.max(1)).zip(&*self.lengths) {
            values[length * width..].fill(0.0);
        }
        Ok(host)
    }

    /// The values of each prompt: `(its own length, width)`.
    ///
    /// # Errors
    /// Those of the device.
    pub fn by_prompt(&self) -> Result<Vec<HostTensor>> {
        let data = self.tensor.read()?;
        let width = self.tensor.rows_cols().1;
        let rows = data.chunks_exact((data.len() / self.lengths.len().max(1)).max(1));
        let prompt = |(values, &length): (&[f32], &usize)| HostTensor {
            shape: vec![length, width],
            data: values[..length * width].to_vec(),
        };
        Ok(rows.zip(&*self.lengths).map(prompt).collect())
    }
}

/// The activations of one run, by site.
#[derive(Clone, Default)]
pub struct ActivationCache(BTreeMap<Site, PromptTensor>);

impl ActivationCache {
    /// The sites, in the order of the forward pass.
    pub fn sites(&self) -> impl Iterator<Item = Site> {
        self.0.keys().copied()
    }

    /// The activations at a site.
    ///
    /// # Errors
    /// [`Error::Unknown`] if the run did not keep it.
    pub fn get(&self, site: Site) -> Result<&PromptTensor> {
        self.0.get(&site).ok_or_else(|| Error::Unknown {
            kind: "recorded site",
            name: site.to_string(),
            known: self.sites().map(|site| site.to_string()).collect::<Vec<_>>().join(", "),
        })
    }
}

impl IntoIterator for ActivationCache {
    type Item = (Site, PromptTensor);
    type IntoIter = std::collections::btree_map::IntoIter<Site, PromptTensor>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// What a run gives.
pub struct Run {
    /// Logits of the next token `(B, T, V)`.
    pub logits: PromptTensor,
    /// The activations kept.
    pub cache: ActivationCache,
}

/// The tokens whose logits a [`Metric`] compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerTokens {
    /// The token whose logit counts positive.
    pub correct: u32,
    /// The token whose logit counts negative.
    pub incorrect: u32,
}

/// A number computed from a run, of which gradients are taken.
#[derive(Clone, Debug, PartialEq)]
pub enum Metric {
    /// Mean cross-entropy of the prompts' tokens but the first ones, in nats.
    Loss,
    /// The difference of two logits at the last position, mean over the prompts: one pair for each
    /// prompt, or one for all.
    LogitDiff(Vec<AnswerTokens>),
}

/// A metric's gradient at a site.
#[derive(Clone)]
pub struct SiteGradient {
    /// The activations `(B, T, width)`.
    pub activation: PromptTensor,
    /// The derivatives of the metric by them, of the same shape.
    pub gradient: PromptTensor,
}

/// A metric and its gradients.
pub struct Gradients {
    /// The metric.
    pub value: f64,
    /// By site.
    pub sites: BTreeMap<Site, SiteGradient>,
}

impl Model {
    /// Runs prompts and keeps the activations at `sites`, for instance those of
    /// [`super::ModelConfig::sites_matching`].
    ///
    /// # Errors
    /// [`Error::Shape`] for prompts that the model cannot read; [`Error::Config`] for a site that
    /// it does not have; otherwise the device's.
    pub fn run_with_cache(&self, prompts: impl Into<Prompts>, sites: &[Site]) -> Result<Run> {
        self.run(prompts, sites, &mut NoHooks)
    }

    /// Runs prompts with hooks, for instance [`super::Interventions`]: the logits.
    ///
    /// # Errors
    /// Those of [`Model::run_with_cache`] and of `hooks`.
    pub fn run_with_hooks(&self, prompts: impl Into<Prompts>, hooks: &mut dyn Hooks) -> Result<PromptTensor> {
        Ok(self.run(prompts, &[], hooks)?.logits)
    }

    /// Runs prompts with hooks, and keeps the activations at `sites` as the hooks leave them.
    ///
    /// # Errors
    /// Those of [`Model::run_with_cache`] and of `hooks`.
    pub fn run(&self, prompts: impl Into<Prompts>, sites: &[Site], hooks: &mut dyn Hooks) -> Result<Run> {
        let batch = self.batch(prompts, sites)?;
        let mut recorder = Recorder::of(sites.iter().copied());
        let weights = Weights::constant(self, &[]);
        let logits = self.forward(&mut Tape::new(), &weights, &batch, &mut (hooks, &mut recorder))?;
        let lengths: Arc<[usize]> = batch.lengths[..].into();
        let keep = |tensor: Tensor| PromptTensor { tensor, lengths: lengths.clone() };
        let values = recorder.values.into_iter().map(|(site, var)| (site, keep(var.value().clone())));
        Ok(Run { cache: ActivationCache(values.collect()), logits: keep(logits.value().clone()) })
    }

    /// Mean cross-entropy of the prompts' tokens but the first ones, in nats.
    ///
    /// # Errors
    /// [`Error::Shape`] for prompts that the model cannot read, or where no token has one before
    /// it; [`Error::NonFiniteSite`] where the loss is not finite; otherwise the device's.
    pub fn loss(&self, prompts: impl Into<Prompts>) -> Result<f64> {
        self.loss_with_hooks(prompts, &mut NoHooks)
    }

    /// [`Model::loss`] of a forward pass with hooks.
    ///
    /// # Errors
    /// Those of [`Model::loss`] and of `hooks`.
    pub fn loss_with_hooks(&self, prompts: impl Into<Prompts>, hooks: &mut dyn Hooks) -> Result<f64> {
        let batch = self.batch(prompts, &[])?;
        predicts(&batch)?;
        let weights = Weights::constant(self, &[]);
        let losses = self.forward_loss(&mut Tape::new(), &weights, &batch, hooks)?.losses.read()?;
        self.check_finite("the loss", &losses, &weights, &batch, hooks)?;
        Ok(losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / batch.predictions() as f64)
    }

    /// A metric of prompts, and its gradients at `sites`.
    ///
    /// # Errors
    /// [`Error::Shape`] for prompts that the model cannot read, answers that do not fit the
    /// prompts, or a loss where no token has one before it; [`Error::Config`] for a site that the
    /// model does not have; otherwise the device's.
    pub fn run_with_gradients(
        &self,
        prompts: impl Into<Prompts>,
        metric: &Metric,
        sites: &[Site],
    ) -> Result<Gradients> {
        self.gradients_with_hooks(prompts, metric, sites, &mut NoHooks)
    }

    /// [`Model::run_with_gradients`] of a forward pass with hooks: activations and gradients are
    /// those of the values that the hooks leave.
    ///
    /// # Errors
    /// Those of [`Model::run_with_gradients`] and of `hooks`.
    pub fn gradients_with_hooks(
        &self,
        prompts: impl Into<Prompts>,
        metric: &Metric,
        sites: &[Site],
        hooks: &mut dyn Hooks,
    ) -> Result<Gradients> {
        let batch = self.batch(prompts, sites)?;
        let (mut tape, mut recorder) = (Tape::new(), Recorder::with_gradients(sites.iter().copied()));
        let hooks: &mut dyn Hooks = &mut (hooks, &mut recorder);
        let weights = Weights::constant(self, &[]);
        let value = match metric {
            Metric::Loss => {
                predicts(&batch)?;
                let LossOutput { loss, .. } = self.forward_loss(&mut tape, &weights, &batch, hooks)?;
                loss
            }
            Metric::LogitDiff(answers) => self.logit_diffs(&mut tape, &weights, &batch, answers, hooks)?,
        };
        let values = value.value().read()?;
        let count = values.len();
        let seed = self.device.upload("seed", &[count], &vec![1.0 / count as f32; count])?;
        tape.backward(&value, seed)?;
        let lengths: Arc<[usize]> = batch.lengths[..].into();
        let keep = |tensor: Tensor| PromptTensor { tensor, lengths: lengths.clone() };
        let mut gradients = BTreeMap::new();
        for (site, var) in recorder.values {
            let activation = var.value().clone();
            let gradient = match tape.take_gradient(&var) {
                Some(gradient) => gradient,
                None => self.device.zeros("gradient", activation.shape())?,
            };
            gradients.insert(site, SiteGradient { activation: keep(activation), gradient: keep(gradient) });
        }
        let sum: f64 = values.iter().map(|&v| f64::from(v)).sum();
        Ok(Gradients { value: sum / count as f64, sites: gradients })
    }

    /// The difference of the answers' logits after each prompt: `(B)`.
    fn logit_diffs(
        &self,
        tape: &mut Tape,
        weights: &Weights,
        batch: &Batch,
        answers: &[AnswerTokens],
        hooks: &mut dyn Hooks,
    ) -> Result<Var> {
        let prompts = batch.lengths.len();
        if answers.is_empty() || (answers.len() != 1 && answers.len() != prompts) {
            let message = format!("{} pairs of answers for {prompts} prompts", answers.len());
            return Err(Error::shape("logit_diff", message));
        }
        let pairs: Vec<_> = answers.iter().cycle().take(prompts).map(|a| (0, a.correct, a.incorrect)).collect();
        let pairs = TokenPairs::new(&self.device, [prompts, 1, self.config.vocab_size], &pairs)?;
        let last = QueryPositions::last(&self.device, batch)?;
        let logits = self.forward_at(tape, weights, batch, &last, hooks)?;
        tape.logit_diff(&logits, &pairs)
    }

    /// The attention pattern of every head of a layer: for each prompt `(H, T, T)`, T its own
    /// length (see [`Model::attention_pattern`]).
    ///
    /// # Errors
    /// Those of [`Model::run_with_cache`].
    pub fn attention(&self, prompts: impl Into<Prompts>, layer: usize) -> Result<Vec<HostTensor>> {
        let [q, k] = [SiteKind::AttnQ, SiteKind::AttnK].map(|kind| kind.at(layer));
        let cache = self.run_with_cache(prompts, &[q, k])?.cache;
        let heads = self.config.n_head;
        let pattern = |(mut q, mut k): (HostTensor, HostTensor)| {
            let length = q.shape[0];
            q.shape.insert(0, 1);
            k.shape.insert(0, 1);
            let all = (0..heads).map(|head| self.attention_pattern(layer, head, &q, &k)).collect::<Result<Vec<_>>>()?;
            Ok(HostTensor { shape: vec![heads, length, length], data: all.concat() })
        };
        cache.get(q)?.by_prompt()?.into_iter().zip(cache.get(k)?.by_prompt()?).map(pattern).collect()
    }

    /// The prompts as a batch, the sites checked.
    fn batch(&self, prompts: impl Into<Prompts>, sites: &[Site]) -> Result<Batch> {
        let layers = self.config.n_layer;
        if let Some(site) = sites.iter().find(|site| matches!(site, Site::Layer(layer, _) if *layer >= layers)) {
            return Err(Error::config(site.to_string(), format!("no such site; the model has {layers} layers")));
        }
        Batch::of_prompts(&self.device, &self.config, &prompts.into().0)
    }
}

fn predicts(batch: &Batch) -> Result<()> {
    match batch.predictions() {
        0 => Err(Error::shape("loss", "no token has one before it from which to predict it")),
        _ => Ok(()),
    }
}

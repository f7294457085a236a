//! How well bridges bridge: errors at every site, and what a model says that goes on from the other side, beside what it says
//! that goes on from nothing but the mean.

use serde::Serialize;

use super::objective::{Batches, Objective};
use crate::device::{Device, Tensor};
use crate::model::{Batch, Model, Weights, first_not_finite, means};
use crate::observer::Stage;
use crate::ops::concat;
use crate::tape::{Tape, Var};
use crate::{Error, Result};

/// A model continued at a site.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Hybrid {
    /// Mean divergence of its predictions from the dense model's, in nats.
    pub kl: f64,
    /// Mean cross-entropy of its predictions, in nats.
    pub loss: f64,
    /// The divergence if it goes on from the mean of its own stream over all tokens instead: what no bridge at all gives.
    pub mean_kl: f64,
}

/// One site.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SiteEvaluation {
    /// Its number: `2i` before attention `i`, `2i + 1` before MLP `i`.
    pub site: usize,
    /// Its name, such as `3.resid_mid`.
    pub name: String,
    /// Normalised squared error of the encoder.
    pub nmse_enc: f64,
    /// Normalised squared error of the decoder.
    pub nmse_dec: f64,
    /// The sparse model continued from the encoded dense stream.
    pub d2s: Hybrid,
    /// The dense model continued from the decoded sparse stream.
    pub s2d: Hybrid,
}

/// All sites, and the models by themselves.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BridgeEvaluation {
    /// Tokens it was measured on.
    pub tokens: u64,
    /// The dense model's mean cross-entropy, in nats.
    pub dense_loss: f64,
    /// The sparse model's mean cross-entropy, in nats.
    pub sparse_loss: f64,
    /// Mean divergence of the sparse model's predictions from the dense model's, in nats.
    pub sparse_kl: f64,
    /// The sites, in order.
    pub sites: Vec<SiteEvaluation>,
}

/// Measures bridges on `sequences` of equal length, `batch_size` at a time. Normalised errors are relative to the targets'
/// spread within a batch, as in training.
///
/// # Errors
/// [`Error::Text`] without sequences, [`Error::NonFiniteSite`] where a number is not finite; otherwise those of [`Objective::losses`].
pub fn evaluate(objective: &Objective, sequences: &[Vec<u32>], batch_size: usize) -> Result<BridgeEvaluation> {
    let length = sequences.first().map_or(0, Vec::len);
    let sequences: Vec<&[u32]> = sequences.iter().filter(|s| s.len() == length).map(Vec::as_slice).collect();
    if length < 2 {
        return Err(Error::Text("no sequences to measure the bridges on".into()));
    }
    let chunks = || sequences.chunks(batch_size.max(1));
    let dense_means = site_means(objective, objective.dense, chunks()).map_err(|e| e.in_model("dense"))?;
    let sparse_means = site_means(objective, objective.sparse, chunks()).map_err(|e| e.in_model("sparse"))?;
    let mut total =
        BridgeEvaluation { sites: vec![SiteEvaluation::default(); dense_means.len()], ..Default::default() };
    for (done, chunk) in chunks().enumerate() {
        let (done, of) = (done as u64, Some(chunks().len() as u64));
        objective.observer.advance(&Stage { name: "evaluating", done, total: of, unit: "batches" })?;
        let (tokens, means) = (chunk.concat(), (&dense_means[..], &sparse_means[..]));
        let spliced = objective.splice(&tokens, chunk.len(), means, false)?;
        if let Some((name, value)) = spliced.not_finite() {
            objective.splice(&tokens, chunk.len(), means, true)?;
            return Err(objective.sparse.not_finite(name, value as f32, None));
        }
        let weight = chunk.len() as f64 / sequences.len() as f64;
        total.tokens += (chunk.len() * length) as u64;
        total.dense_loss += weight * spliced.dense_loss;
        total.sparse_loss += weight * spliced.sparse_loss;
        total.sparse_kl += weight * spliced.sparse_kl;
        for (site, (sum, part)) in total.sites.iter_mut().zip(&spliced.sites).enumerate() {
            sum.site = site;
            sum.name = objective.sparse.config.residual_site(site).to_string();
            sum.nmse_enc += weight * part.nmse_enc;
            sum.nmse_dec += weight * part.nmse_dec;
            for (sum, part) in [(&mut sum.d2s, part.d2s), (&mut sum.s2d, part.s2d)] {
                sum.kl += weight * part.kl;
                sum.loss += weight * part.loss;
                sum.mean_kl += weight * part.mean_kl;
            }
        }
    }
    Ok(total)
}

impl BridgeEvaluation {
    /// The first of its numbers that is not finite, with its name.
    fn not_finite(&self) -> Option<(String, f64)> {
        let whole = [
            ("the dense model's loss", self.dense_loss),
            ("the sparse model's loss", self.sparse_loss),
            ("the divergence of the sparse model", self.sparse_kl),
        ];
        let whole = whole.into_iter().map(|(name, value)| (name.to_string(), value));
        let of_site = |at: &SiteEvaluation| {
            let site = at.site;
            [
                (format!("the encoder's error at site {site}"), at.nmse_enc),
                (format!("the decoder's error at site {site}"), at.nmse_dec),
                (format!("the divergence continued sparse from site {site}"), at.d2s.kl),
                (format!("the loss continued sparse from site {site}"), at.d2s.loss),
                (format!("the divergence continued sparse from the mean at site {site}"), at.d2s.mean_kl),
                (format!("the divergence continued dense from site {site}"), at.s2d.kl),
                (format!("the loss continued dense from site {site}"), at.s2d.loss),
                (format!("the divergence continued dense from the mean at site {site}"), at.s2d.mean_kl),
            ]
        };
        whole.chain(self.sites.iter().flat_map(of_site)).find(|(_, value)| !value.is_finite())
    }
}

impl Objective<'_> {
    /// What [`evaluate`] says of one batch; means are those of the dense and of the sparse stream. If it is checked, it ends at the first site
    /// that is not finite.
    fn splice(
        &self,
        tokens: &[u32],
        sequences: usize,
        means: (&Means, &Means),
        checked: bool,
    ) -> Result<BridgeEvaluation> {
        let batches = Batches { checked, ..self.batches(tokens, sequences)? };
        let dense = self.run_dense(&batches)?;
        let (mut tape, maps) = (Tape::new(), self.bridges.constants());
        let weights = Weights::constant(self.sparse, self.compressed);
        let sparse = self.run_sparse(&mut tape, &weights, &batches)?;
        let encoded = self.encode(&mut tape, &maps, &dense, &sparse)?;
        let decoded = self.decode(&mut tape, &maps, &dense, &sparse)?;
        if checked {
            for (name, mapped) in [("encoder", &encoded), ("decoder", &decoded)] {
                for (site, stream) in mapped.streams.iter().enumerate() {
                    if let Some((_, value)) = first_not_finite(&stream.value().read()?) {
                        return Err(self.sparse.not_finite(
                            format!("what the {name} gives at site {site}"),
                            value,
                            None,
                        ));
                    }
                }
            }
        }

        let judge = Judge { objective: self, batches: &batches, weights: &weights, target: &dense.logits };
        let shape = batches.sparse.shape();
        let from_means = |means: &Means| streams(&self.sparse.device, means, shape);
        let d2s = self.continue_sparse(&mut tape, &weights, &batches, encoded.streams)?;
        let d2s_mean = self.continue_sparse(&mut tape, &weights, &batches, from_means(means.1)?)?;
        let d2s = judge.hybrids(&d2s, &d2s_mean)?;
        let s2d = self.continue_dense(&mut tape, &batches, decoded.streams)?;
        let s2d_mean = self.continue_dense(&mut tape, &batches, from_means(means.0)?)?;
        let s2d = judge.hybrids(&s2d, &s2d_mean)?;

        let mut sites = Vec::with_capacity(d2s.len());
        for (site, (d2s, s2d)) in d2s.into_iter().zip(s2d).enumerate() {
            let (nmse_enc, nmse_dec) = (first(&encoded.errors[site])?, first(&decoded.errors[site])?);
            sites.push(SiteEvaluation { site, nmse_enc, nmse_dec, d2s, s2d, ..SiteEvaluation::default() });
        }
        Ok(BridgeEvaluation {
            tokens: tokens.len() as u64,
            dense_loss: judge.cross_entropy(&dense.logits)?,
            sparse_loss: judge.cross_entropy(sparse.logits.value())?,
            sparse_kl: judge.divergences(&sparse.logits)?.iter().sum(),
            sites,
        })
    }
}

/// Puts logits beside the dense model's and beside the right answers.
struct Judge<'a> {
    objective: &'a Objective<'a>,
    batches: &'a Batches,
    weights: &'a Weights,
    /// The dense model's logits, `(B, T, V)`.
    target: &'a Tensor,
}

impl Judge<'_> {
    /// Of the logits `(sites · B, T, V)` of hybrids, and of those that went on from the mean.
    fn hybrids(&self, logits: &Var, from_mean: &Var) -> Result<Vec<Hybrid>> {
        let sequences = self.target.shape()[0];
        let divergences = self.divergences(logits)?.into_iter().zip(self.divergences(from_mean)?);
        let mut hybrids = Vec::new();
        for (site, (kl, mean_kl)) in divergences.enumerate() {
            let loss = self.cross_entropy(&concat::narrow(logits.value(), 0, site * sequences, sequences)?)?;
            hybrids.push(Hybrid { kl, loss, mean_kl });
        }
        Ok(hybrids)
    }

    /// Mean divergences of as many predictions as the logits hold of the batch.
    fn divergences(&self, logits: &Var) -> Result<Vec<f64>> {
        let kl = Tape::new().kl(logits, self.target)?;
        Ok(kl.value().read()?.into_iter().map(f64::from).collect())
    }

    fn cross_entropy(&self, logits: &Tensor) -> Result<f64> {
        let logits = Var::constant(logits.clone());
        first(&self.objective.own(&mut Tape::new(), self.weights, self.batches, logits)?)
    }
}

fn first(number: &Var) -> Result<f64> {
    let read = number.value().read()?;
    read.first().map(|&v| f64::from(v)).ok_or_else(|| Error::shape("bridges", "no number"))
}

/// For every site the mean of the residual stream.
type Means = [Vec<f32>];

/// Streams `(B, T, d_model)` that are `means` everywhere.
fn streams(device: &Device, means: &Means, (sequences, length): (usize, usize)) -> Result<Vec<Var>> {
    let stream = |mean: &Vec<f32>| {
        let shape = [sequences, length, mean.len()];
        Ok(Var::constant(device.upload("mean stream", &shape, &mean.repeat(sequences * length))?))
    };
    means.iter().map(stream).collect()
}

/// The mean of the residual stream over all tokens, at every site.
fn site_means<'a>(
    objective: &Objective,
    model: &Model,
    chunks: impl Iterator<Item = &'a [&'a [u32]]>,
) -> Result<Vec<Vec<f32>>> {
    let batches = chunks.map(|chunk| {
        objective.observer.check()?;
        Batch::new(&model.device, &model.config, &chunk.concat(), chunk.len())
    });
    let sites: Vec<_> = (0..model.config.residual_sites()).map(|site| model.config.residual_site(site)).collect();
    let mut means = means(model, batches, &sites)?;
    let sites = sites.iter().map(|site| means.remove(site));
    let sites = sites.collect::<Option<Vec<_>>>();
    sites.ok_or_else(|| Error::shape("bridges", "a site was not visited"))
}

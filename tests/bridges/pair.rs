//! Tiny pairs of models with bridges, and the objective in plain float64 loops (method: section 5).

use std::collections::BTreeMap;

use gossamer::bridges::Bridges;
use gossamer::device::Device;
use gossamer::files::HostTensor;
use gossamer::model::{Model, ModelConfig, Parameters};
use gossamer::train::bridge::EncoderKind;
use gossamer::train::bridge_loss::Terms;

use crate::common::{normal, rng};
use crate::oracle;
use crate::variants::{config, prompts, random_state};

/// The fraction of the sparse stream that encoders keep.
pub const AFRAC: f64 = 0.3;

/// How far central differences go; in [`Pair::smooth`] no choice of AbsTopK is so close that this
/// would change it.
pub const STEP: f32 = 1e-4;

pub type State = BTreeMap<String, HostTensor>;

/// A pair and what it is run on, with numbers on the host.
#[derive(Clone)]
pub struct Pair {
    pub dense: (ModelConfig, State),
    pub sparse: (ModelConfig, State),
    pub encoder: EncoderKind,
    pub bridges: State,
    pub tokens: Vec<u32>,
    pub sequences: usize,
}

impl Pair {
    pub fn new(dense: ModelConfig, sparse: ModelConfig, seed: u64) -> Self {
        Self::with(EncoderKind::AbsTopK, dense, sparse, seed)
    }

    pub fn with(encoder: EncoderKind, dense: ModelConfig, sparse: ModelConfig, seed: u64) -> Self {
        let fresh = Bridges::new(&dense, &sparse, encoder, AFRAC, 0, &Device::cpu()).unwrap().to_host().unwrap();
        let mut rng = rng(seed);
        let random = |(name, mut tensor): (String, HostTensor)| {
            tensor.data = normal(&mut rng, tensor.data.len()).iter().map(|v| 0.4 * v).collect();
            (name, tensor)
        };
        let bridges = fresh.into_iter().map(random).collect();
        let tokens = prompts(&dense, seed, 3, 6);
        let dense_state = random_state(&dense, seed);
        let sparse_state = random_state(&sparse, seed + 100);
        Self { dense: (dense, dense_state), sparse: (sparse, sparse_state), encoder, bridges, tokens, sequences: 3 }
    }

    /// A LayerNorm dense model, a wider sparse model with everything that is shared between copies
    /// of a batch, no AbsTopK but the encoders'.
    pub fn smooth() -> Self {
        Self::smooth_with(EncoderKind::AbsTopK)
    }

    pub fn smooth_with(encoder: EncoderKind) -> Self {
        let sparse = r#""d_model": 14, "rms_norm": true, "sink": true, "d_pos_emb": 3, "tied_unembed": false,
                        "enable_bigram_table": true, "learnable_bigram_table": true, "block_size": 9"#;
        let mut pairs = (0..200).map(|seed| Self::with(encoder, config(""), config(sparse), seed));
        pairs.find(|pair| pair.terms(None, false).2 > 20.0 * f64::from(STEP)).expect("close choices with every seed")
    }

    pub fn models(&self, device: &Device) -> (Model, Model, Bridges) {
        let model = |(config, state): &(ModelConfig, State)| Model {
            config: config.clone(),
            parameters: Parameters::from_host(config, state.clone(), device).unwrap(),
            device: device.clone(),
        };
        let (dense, sparse) = (&self.dense.0, &self.sparse.0);
        let bridges = Bridges::from_host(dense, sparse, self.encoder, AFRAC, &self.bridges, device).unwrap();
        (model(&self.dense), model(&self.sparse), bridges)
    }

    /// The terms in float64. The encoders' targets, or with `draw` only the scales of their errors,
    /// are those of `frozen`, the sparse streams of another call; without, those of this one.
    /// Beside the terms: the sparse streams, and by how much the closest choice of any AbsTopK was
    /// decided.
    pub fn terms(&self, frozen: Option<&[Vec<f64>]>, draw: bool) -> (Terms<f64>, Vec<Vec<f64>>, f64) {
        self.terms_at(None, frozen, draw)
    }

    /// As [`Pair::terms`], with soft thresholds of a sharpness.
    pub fn terms_at(
        &self,
        sharpness: Option<f64>,
        frozen: Option<&[Vec<f64>]>,
        draw: bool,
    ) -> (Terms<f64>, Vec<Vec<f64>>, f64) {
        let (d, s) = (Runs::of(&self.dense, self), Runs::of(&self.sparse, self));
        let mut margin = d.margin.min(s.margin);
        let scales = frozen.unwrap_or(&s.sites);
        let targets = if draw { &s.sites } else { scales };
        let mut terms = Terms::default();
        terms.push("cross_entropy", self.cross_entropy(&s.logits));
        terms.push("kl_sparse", kl(&d.logits, &s.logits, self.dense.0.vocab_size));
        for site in 0..d.sites.len() {
            let (encoded, close) = self.encoded(site, &d.sites[site], sharpness);
            let decoded = self.affine(&format!("dec.{site}"), &s.sites[site]);
            terms.push("nmse_enc", nmse(&encoded, &targets[site], &scales[site], self.sparse.0.d_model));
            terms.push("nmse_dec", nmse(&decoded, &d.sites[site], &d.sites[site], self.dense.0.d_model));
            let (d2s, s2d) = (self.spliced(&self.sparse, site, &encoded), self.spliced(&self.dense, site, &decoded));
            terms.push("kl_d2s", kl(&d.logits, &d2s.logits, self.dense.0.vocab_size));
            terms.push("kl_s2d", kl(&d.logits, &s2d.logits, self.dense.0.vocab_size));
            margin = margin.min(close).min(d2s.margin).min(s2d.margin);
        }
        (terms, s.sites, margin)
    }

    /// What an evaluation knows beside the terms.
    pub fn spliced_from_all(&self) -> Beside {
        let (d, s) = (Runs::of(&self.dense, self), Runs::of(&self.sparse, self));
        let divergence = |runs: &Runs| kl(&d.logits, &runs.logits, self.dense.0.vocab_size);
        let mut beside = Beside {
            dense_loss: self.cross_entropy(&d.logits),
            sparse_kl: divergence(&s),
            d2s: Vec::new(),
            s2d: Vec::new(),
        };
        for site in 0..d.sites.len() {
            let (encoded, _) = self.encoded(site, &d.sites[site], None);
            let decoded = self.affine(&format!("dec.{site}"), &s.sites[site]);
            let hybrid = |model: &(ModelConfig, State), stream: &[f64], own: &[f64]| {
                let loss = self.cross_entropy(&self.spliced(model, site, stream).logits);
                let (width, rows) = (model.0.d_model, self.tokens.len());
                let mean = |c: usize| own.iter().skip(c).step_by(width).sum::<f64>() / rows as f64;
                let mean: Vec<f64> = (0..width).map(mean).collect();
                (loss, divergence(&self.spliced(model, site, &mean.repeat(rows))))
            };
            beside.d2s.push(hybrid(&self.sparse, &encoded, &s.sites[site]));
            beside.s2d.push(hybrid(&self.dense, &decoded, &d.sites[site]));
        }
        beside
    }

    /// What an encoder gives; beside it, by how much the closest choice was decided.
    fn encoded(&self, site: usize, x: &[f64], sharpness: Option<f64>) -> (Vec<f64>, f64) {
        let (z, width) = (self.affine(&format!("enc.{site}"), x), self.sparse.0.d_model);
        if self.encoder == EncoderKind::AbsTopK {
            return keep(z, width, (AFRAC * width as f64).floor() as usize);
        }
        let log_eps = &self.bridges[&format!("enc.{site}.log_eps")].data;
        let mut margin = f64::INFINITY;
        let passed = |(i, z): (usize, f64)| {
            let u = z.abs() - f64::from(log_eps[i % width]).exp();
            match sharpness {
                Some(sharpness) => z / (1.0 + (-sharpness * u).exp()),
                None => {
                    margin = margin.min(u.abs());
                    if u >= 0.0 { z } else { 0.0 }
                }
            }
        };
        let passed = z.into_iter().enumerate().map(passed).collect();
        (passed, margin)
    }

    fn affine(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let (weight, bias) = (&self.bridges[&format!("{name}.weight")], &self.bridges[&format!("{name}.bias")]);
        let inputs = weight.shape[1];
        let row = |x: &[f64]| -> Vec<f64> {
            let product = |w: &[f32]| w.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum::<f64>();
            weight.data.chunks(inputs).zip(&bias.data).map(|(w, b)| product(w) + f64::from(*b)).collect()
        };
        x.chunks(inputs).flat_map(row).collect()
    }

    fn cross_entropy(&self, logits: &[f64]) -> f64 {
        let (vocab, length) = (self.sparse.0.vocab_size, self.tokens.len() / self.sequences);
        let (mut sum, mut count) = (0.0, 0.0);
        for (at, row) in logits.chunks(vocab).enumerate() {
            if (at + 1) % length != 0 {
                sum -= log_softmax(row)[self.tokens[at + 1] as usize];
                count += 1.0;
            }
        }
        sum / count
    }

    /// A model continued from `stream` at a site.
    fn spliced(&self, (config, state): &(ModelConfig, State), site: usize, stream: &[f64]) -> Runs {
        let (name, length) = (site_name(config, site), self.tokens.len() / self.sequences);
        let mut runs = Runs { sites: Vec::new(), logits: Vec::new(), margin: f64::INFINITY };
        for (tokens, part) in self.tokens.chunks(length).zip(stream.chunks(length * config.d_model)) {
            // What comes before is run in vain and counts nothing, its close choices included; the
            // tests are the stricter for it.
            let run = oracle::run(config, state, tokens, &mut |at, values| {
                if at == name {
                    values.copy_from_slice(part);
                }
            });
            runs.logits.extend(run.logits);
            runs.margin = runs.margin.min(run.margin);
        }
        runs
    }
}

/// See [`Pair::spliced_from_all`]. Of each site the loss of the hybrid, and the divergence of the
/// one that goes on from the mean.
pub struct Beside {
    pub dense_loss: f64,
    pub sparse_kl: f64,
    pub d2s: Vec<(f64, f64)>,
    pub s2d: Vec<(f64, f64)>,
}

/// What a model makes of all sequences.
struct Runs {
    /// The residual stream at each site, all sequences one after the other.
    sites: Vec<Vec<f64>>,
    logits: Vec<f64>,
    margin: f64,
}

impl Runs {
    fn of((config, state): &(ModelConfig, State), pair: &Pair) -> Self {
        let names: Vec<_> = (0..=2 * config.n_layer).map(|site| site_name(config, site)).collect();
        let mut runs = Self { sites: vec![Vec::new(); names.len()], logits: Vec::new(), margin: f64::INFINITY };
        for tokens in pair.tokens.chunks(pair.tokens.len() / pair.sequences) {
            let (seen, run) = oracle::sites(config, state, tokens);
            names.iter().zip(&mut runs.sites).for_each(|(name, site)| site.extend(&seen[name]));
            runs.logits.extend(run.logits);
            runs.margin = runs.margin.min(run.margin);
        }
        runs
    }
}

fn site_name(config: &ModelConfig, site: usize) -> String {
    match site {
        last if last == 2 * config.n_layer => "final_resid".into(),
        site if site % 2 == 0 => format!("{}.resid_in", site / 2),
        site => format!("{}.resid_mid", site / 2),
    }
}

/// The `k` largest magnitudes of each row; beside them, by how much the closest choice was decided.
fn keep(mut x: Vec<f64>, width: usize, k: usize) -> (Vec<f64>, f64) {
    let mut margin = f64::INFINITY;
    for row in x.chunks_mut(width) {
        let mut order: Vec<usize> = (0..width).collect();
        order.sort_by(|&a, &b| row[b].abs().total_cmp(&row[a].abs()));
        margin = margin.min(row[order[k - 1]].abs() - row[order[k]].abs());
        order[k..].iter().for_each(|&i| row[i] = 0.0);
    }
    (x, margin)
}

/// Squared errors of rows, relative to how far those of `scale` are from their mean.
fn nmse(x: &[f64], target: &[f64], scale: &[f64], width: usize) -> f64 {
    let rows = target.len() / width;
    let mean: Vec<f64> = (0..width).map(|c| scale.iter().skip(c).step_by(width).sum::<f64>() / rows as f64).collect();
    let square = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
    let errors = x.chunks(width).zip(target.chunks(width)).map(|(x, t)| square(x, t));
    errors.zip(scale.chunks(width)).map(|(error, s)| error / square(s, &mean)).sum::<f64>() / rows as f64
}

fn kl(target: &[f64], logits: &[f64], vocab: usize) -> f64 {
    let row = |(t, x): (&[f64], &[f64])| {
        let (log_p, log_q) = (log_softmax(t), log_softmax(x));
        log_p.iter().zip(&log_q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>()
    };
    target.chunks(vocab).zip(logits.chunks(vocab)).map(row).sum::<f64>() * vocab as f64 / target.len() as f64
}

fn log_softmax(row: &[f64]) -> Vec<f64> {
    let top = row.iter().fold(f64::MIN, |m, &v| m.max(v));
    let lse = top + row.iter().map(|v| (v - top).exp()).sum::<f64>().ln();
    row.iter().map(|v| v - lse).collect()
}

//! Encoders and decoders at every residual site.

use std::collections::BTreeMap;

use crate::device::{Device, Tensor};
use crate::files::HostTensor;
use crate::model::hash::hash_of;
use crate::model::{ModelConfig, NotFinite, fill_normal};
use crate::ops::linear::Weight;
use crate::tape::{Tape, Var};
use crate::train::bridge::EncoderKind;
use crate::{Error, Result};

/// Standard deviation of the weights at the start, as of a model's linear layers.
const START: f32 = 0.02;

/// The logarithm of thresholds at the start.
const START_LOG_EPS: f32 = -1.0;

/// What the names of thresholds end in.
const LOG_EPS: &str = ".log_eps";

/// Where a map's weight and bias are among a site's tensors.
const ENCODER: usize = 0;
const DECODER: usize = 2;

/// One tensor of the bridges.
pub struct BridgeTensor {
    /// `enc.{site}.weight`, `enc.{site}.bias`, `dec.{site}.weight`, `dec.{site}.bias` or
    /// `enc.{site}.log_eps`.
    pub name: String,
    /// Its numbers: weights are `(out, in)`, biases `(out)`, logarithms of thresholds `(out)`.
    pub value: Tensor,
}

/// The encoders and decoders of a dense and a sparse model, with as many sites as the models'
/// residual streams ([`ModelConfig::residual_sites`]).
///
/// Encoder: `f(h) = AbsTopK(W h + b)` from the dense stream to the sparse one, or with thresholds
/// `f(h) = z [|z| ≥ e^log_eps]` with `z = W h + b`; decoder: `g(h) = W h + b` back.
pub struct Bridges {
    /// Their tensors: for each site the weight and bias of the encoder, then of the decoder; after
    /// all of these, for each site the logarithms of the thresholds, if there are any.
    pub list: Vec<BridgeTensor>,
    sites: usize,
    kept: Kept,
}

/// What encoders keep of the sparse stream.
#[derive(Clone, Copy)]
enum Kept {
    Most(usize),
    AboveThresholds,
}

impl Kept {
    fn of(encoder: EncoderKind, afrac: f64, sparse: &ModelConfig) -> Result<Self> {
        if encoder == EncoderKind::Threshold {
            return Ok(Self::AboveThresholds);
        }
        if !(afrac > 0.0 && afrac <= 1.0) {
            return Err(Error::config("encoder_afrac", format!("{afrac} is not in (0, 1]")));
        }
        match (afrac * sparse.d_model as f64).floor() as usize {
            0 => Err(Error::config("encoder_afrac", format!("{afrac} of {} channels is none", sparse.d_model))),
            kept => Ok(Self::Most(kept)),
        }
    }
}

impl Bridges {
    /// Bridges as training starts: weights normal(0, 0.02), biases 0, thresholds `e^-1`. Encoders
    /// with AbsTopK keep `floor(afrac · d_model)` entries of the sparse stream.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the models do not fit together, [`Error::Config`] if nothing would be
    /// kept, and the device's limits.
    pub fn new(
        dense: &ModelConfig,
        sparse: &ModelConfig,
        encoder: EncoderKind,
        afrac: f64,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let kept = Kept::of(encoder, afrac, sparse)?;
        let mut list = Vec::new();
        for (stream, (name, shape)) in shapes(dense, sparse, encoder)?.into_iter().enumerate() {
            let value = device.upload_with(&name, &shape, |data| {
                if shape.len() == 2 {
                    // Away from the streams of the models' own parameters, which count from below,
                    // and of the batches.
                    fill_normal((seed, (1 << 32) + stream as u64), START, data);
                } else if name.ends_with(LOG_EPS) {
                    data.fill(START_LOG_EPS);
                }
            })?;
            list.push(BridgeTensor { name, value });
        }
        Ok(Self { list, sites: sparse.residual_sites(), kept })
    }

    /// `sha256:…` over every tensor's name, shape and numbers, as of a model.
    pub(crate) fn hash(&self) -> Result<String> {
        hash_of(self.list.iter().map(|map| Ok((map.name.as_str(), map.value.shape(), map.value.read()?))))
    }

    /// Bridges from named tensors.
    ///
    /// # Errors
    /// [`Error::Mismatch`] naming a tensor that is missing, of another shape, not finite, or not
    /// one of theirs; otherwise those of [`Bridges::new`].
    pub fn from_host(
        dense: &ModelConfig,
        sparse: &ModelConfig,
        encoder: EncoderKind,
        afrac: f64,
        tensors: &BTreeMap<String, HostTensor>,
        device: &Device,
    ) -> Result<Self> {
        let kept = Kept::of(encoder, afrac, sparse)?;
        let shapes = shapes(dense, sparse, encoder)?;
        if let Some(name) = tensors.keys().find(|name| shapes.iter().all(|(known, _)| known != *name)) {
            return Err(Error::Mismatch(format!("{name} is no part of bridges between these models")));
        }
        let mut list = Vec::with_capacity(shapes.len());
        let missing = |name| Error::MissingTensor { holder: "the file of bridges".into(), name };
        for (name, shape) in shapes {
            let host = tensors.get(&name).filter(|host| host.shape == shape);
            let host = host.ok_or_else(|| missing(format!("{name} {shape:?}")))?;
            if let Some(found) = NotFinite::find(&name, &shape, &host.data) {
                return Err(Error::Mismatch(format!(
                    "the bridges' {found}: train them anew, or from an earlier checkpoint"
                )));
            }
            list.push(BridgeTensor { value: device.upload(&name, &shape, &host.data)?, name });
        }
        Ok(Self { list, sites: sparse.residual_sites(), kept })
    }

    /// Copies all tensors to the host, by name.
    ///
    /// # Errors
    /// Those of the device.
    pub fn to_host(&self) -> Result<BTreeMap<String, HostTensor>> {
        let host = |map: &BridgeTensor| Ok(HostTensor { shape: map.value.shape().to_vec(), data: map.value.read()? });
        self.list.iter().map(|map| Ok((map.name.clone(), host(map)?))).collect()
    }

    /// The decoder's weight at `site`, `(d_dense, d_sparse)`.
    pub(crate) fn decoder(&self, site: usize) -> Result<&Tensor> {
        match self.list.get(4 * site + DECODER).filter(|_| site < self.sites) {
            Some(map) => Ok(&map.value),
            None => Err(Error::shape("bridges", format!("no site {site} among {}", self.sites))),
        }
    }

    /// The tensors as constants, for [`Bridges::encode`] and [`Bridges::decode`].
    pub fn constants(&self) -> Vec<Var> {
        self.list.iter().map(|map| Var::constant(map.value.clone())).collect()
    }

    /// The sparse stream `(.., d_sparse)` that the encoder of `site` makes of the dense one, `h:
    /// (.., d_dense)`. `maps` are the tensors' values, in order. With a sharpness thresholds are
    /// soft, as in training; AbsTopK knows none.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not fit, or there is no such site.
    pub fn encode(&self, tape: &mut Tape, maps: &[Var], site: usize, h: &Var, sharpness: Option<f32>) -> Result<Var> {
        let z = self.affine(tape, maps, site, ENCODER, h)?;
        match (self.kept, maps.get(4 * self.sites + site)) {
            (Kept::Most(k), _) => tape.abs_topk(&z, k),
            (Kept::AboveThresholds, Some(log_eps)) => tape.threshold(&z, log_eps, sharpness),
            (Kept::AboveThresholds, None) => Err(self.no_site(site)),
        }
    }

    /// The dense stream `(.., d_dense)` that the decoder of `site` makes of the sparse one, `h:
    /// (.., d_sparse)`. `maps` are the tensors' values, in order.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not fit, or there is no such site.
    pub fn decode(&self, tape: &mut Tape, maps: &[Var], site: usize, h: &Var) -> Result<Var> {
        self.affine(tape, maps, site, DECODER, h)
    }

    /// `W h + b` by the weight and bias at `map` among the tensors of a site.
    fn affine(&self, tape: &mut Tape, maps: &[Var], site: usize, map: usize, h: &Var) -> Result<Var> {
        match maps.get(4 * site + map..4 * site + map + 2).filter(|_| site < self.sites) {
            Some([weight, bias]) => tape.linear(h, &Weight::Dense(weight.clone()), Some(bias)),
            _ => Err(self.no_site(site)),
        }
    }

    fn no_site(&self, site: usize) -> Error {
        Error::shape("bridges", format!("no site {site} among {}", self.sites))
    }
}

/// Returns an error if there can be no bridges between two models.
pub(super) fn check_fit(dense: &ModelConfig, sparse: &ModelConfig) -> Result<()> {
    for (what, dense, sparse) in
        [("layers", dense.n_layer, sparse.n_layer), ("tokens", dense.vocab_size, sparse.vocab_size)]
    {
        if dense != sparse {
            let message = format!("the dense model has {dense} {what} and the sparse one {sparse}");
            return Err(Error::Mismatch(format!("{message}: bridges join models that have equally many")));
        }
    }
    Ok(())
}

/// Names and shapes of the tensors between two models, in order.
fn shapes(dense: &ModelConfig, sparse: &ModelConfig, encoder: EncoderKind) -> Result<Vec<(String, Vec<usize>)>> {
    check_fit(dense, sparse)?;
    let (d, s) = (dense.d_model, sparse.d_model);
    let site = |site: usize| {
        let maps = [("enc", s, d), ("dec", d, s)].into_iter();
        maps.flat_map(move |(map, out, input)| {
            let name = format!("{map}.{site}");
            [(format!("{name}.weight"), vec![out, input]), (format!("{name}.bias"), vec![out])]
        })
    };
    let sites = 0..sparse.residual_sites();
    let mut shapes: Vec<_> = sites.clone().flat_map(site).collect();
    // After the others, so that weights start alike with both kinds of encoders.
    if encoder == EncoderKind::Threshold {
        shapes.extend(sites.map(|site| (format!("enc.{site}{LOG_EPS}"), vec![s])));
    }
    Ok(shapes)
}

//! Encoders and decoders at every residual site.

use std::collections::BTreeMap;

use crate::device::{Device, Tensor};
use crate::files::HostTensor;
use crate::model::hash::hash_of;
use crate::model::{ModelConfig, NotFinite, fill_normal};
use crate::ops::linear::Weight;
use crate::tape::{Tape, Var};
use crate::{Error, Result};

/// Standard deviation of the weights at the start, as of a model's linear layers.
const START: f32 = 0.02;

/// One tensor of the bridges.
pub struct BridgeTensor {
    /// `enc.{site}.weight`, `enc.{site}.bias`, `dec.{site}.weight` or `dec.{site}.bias`.
    pub name: String,
    /// Its numbers: weights are `(out, in)`, biases `(out)`.
    pub value: Tensor,
}

/// The encoders and decoders of a dense and a sparse model, with as many sites as the models'
/// residual streams ([`ModelConfig::residual_sites`]).
///
/// Encoder: `f(h) = AbsTopK(W h + b)` from the dense stream to the sparse one; decoder: `g(h) = W h
/// + b` back.
pub struct Bridges {
    /// Their tensors: for each site the weight and bias of the encoder, then of the decoder.
    pub list: Vec<BridgeTensor>,
    kept: usize,
}

/// How many entries of the sparse stream an encoder keeps.
fn kept_by_encoders(afrac: f64, sparse: &ModelConfig) -> Result<usize> {
    if !(afrac > 0.0 && afrac <= 1.0) {
        return Err(Error::config("encoder_afrac", format!("{afrac} is not in (0, 1]")));
    }
    match (afrac * sparse.d_model as f64).floor() as usize {
        0 => Err(Error::config("encoder_afrac", format!("{afrac} of {} channels is none", sparse.d_model))),
        kept => Ok(kept),
    }
}

impl Bridges {
    /// Bridges as training starts: weights normal(0, 0.02), biases 0. The encoders keep
    /// `floor(afrac · d_model)` entries of the sparse stream.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the models do not fit together, [`Error::Config`] if nothing would be
    /// kept, and the device's limits.
    pub fn new(dense: &ModelConfig, sparse: &ModelConfig, afrac: f64, seed: u64, device: &Device) -> Result<Self> {
        let kept = kept_by_encoders(afrac, sparse)?;
        let mut list = Vec::new();
        for (stream, (name, shape)) in shapes(dense, sparse)?.into_iter().enumerate() {
            let value = device.upload_with(&name, &shape, |data| {
                if shape.len() == 2 {
                    // Away from the streams of the models' own parameters, which count from below,
                    // and of the batches.
                    fill_normal((seed, (1 << 32) + stream as u64), START, data);
                }
            })?;
            list.push(BridgeTensor { name, value });
        }
        Ok(Self { list, kept })
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
        afrac: f64,
        tensors: &BTreeMap<String, HostTensor>,
        device: &Device,
    ) -> Result<Self> {
        let kept = kept_by_encoders(afrac, sparse)?;
        let shapes = shapes(dense, sparse)?;
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
        Ok(Self { list, kept })
    }

    /// Copies all tensors to the host, by name.
    ///
    /// # Errors
    /// Those of the device.
    pub fn to_host(&self) -> Result<BTreeMap<String, HostTensor>> {
        let host = |map: &BridgeTensor| Ok(HostTensor { shape: map.value.shape().to_vec(), data: map.value.read()? });
        self.list.iter().map(|map| Ok((map.name.clone(), host(map)?))).collect()
    }

    /// How many sites they have.
    pub(crate) fn sites(&self) -> usize {
        self.list.len() / 4
    }

    /// The decoder's weight at `site`, `(d_dense, d_sparse)`.
    pub(crate) fn decoder(&self, site: usize) -> Result<&Tensor> {
        match self.list.get(4 * site + 2) {
            Some(map) => Ok(&map.value),
            None => Err(Error::shape("bridges", format!("no site {site} among {}", self.sites()))),
        }
    }

    /// The tensors as constants, for [`Bridges::encode`] and [`Bridges::decode`].
    pub fn constants(&self) -> Vec<Var> {
        self.list.iter().map(|map| Var::constant(map.value.clone())).collect()
    }

    /// The sparse stream `(.., d_sparse)` that the encoder of `site` makes of the dense one, `h:
    /// (.., d_dense)`. `maps` are the tensors' values, in order.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not fit, or there is no such site.
    pub fn encode(&self, tape: &mut Tape, maps: &[Var], site: usize, h: &Var) -> Result<Var> {
        let x = affine(tape, maps, 4 * site, h)?;
        tape.abs_topk(&x, self.kept)
    }

    /// The dense stream `(.., d_dense)` that the decoder of `site` makes of the sparse one, `h:
    /// (.., d_sparse)`. `maps` are the tensors' values, in order.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not fit, or there is no such site.
    pub fn decode(&self, tape: &mut Tape, maps: &[Var], site: usize, h: &Var) -> Result<Var> {
        affine(tape, maps, 4 * site + 2, h)
    }
}

fn affine(tape: &mut Tape, maps: &[Var], at: usize, h: &Var) -> Result<Var> {
    match maps.get(at..at + 2) {
        Some([weight, bias]) => tape.linear(h, &Weight::Dense(weight.clone()), Some(bias)),
        _ => Err(Error::shape("bridges", format!("no site {} among {}", at / 4, maps.len() / 4))),
    }
}

/// Names and shapes of the tensors between two models, in order.
pub(super) fn shapes(dense: &ModelConfig, sparse: &ModelConfig) -> Result<Vec<(String, Vec<usize>)>> {
    for (what, dense, sparse) in
        [("layers", dense.n_layer, sparse.n_layer), ("tokens", dense.vocab_size, sparse.vocab_size)]
    {
        if dense != sparse {
            let message = format!("the dense model has {dense} {what} and the sparse one {sparse}");
            return Err(Error::Mismatch(format!("{message}: bridges join models that have equally many")));
        }
    }
    let (d, s) = (dense.d_model, sparse.d_model);
    let site = |site: usize| {
        let maps = [("enc", s, d), ("dec", d, s)].into_iter();
        maps.flat_map(move |(map, out, input)| {
            let name = format!("{map}.{site}");
            [(format!("{name}.weight"), vec![out, input]), (format!("{name}.bias"), vec![out])]
        })
    };
    Ok((0..sparse.residual_sites()).flat_map(site).collect())
}

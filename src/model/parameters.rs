//! The parameters by their published names: shapes, roles, initialisation.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::shapes::{EMBEDDING, UNEMBEDDING};
use super::{LinearLayer, ModelConfig, NotFinite, check_tied, check_weights};
use crate::device::{Device, Tensor};
use crate::files::{HostTensor, InMemory, TensorSource};
use crate::ops::compress::{self, SparseMatrix};
use crate::ops::weight_topk::Neurons;
use crate::ops::{count_nonzero, sparse_linear};
use crate::{Error, Result};

/// What a parameter is, which decides how it starts and how it is trained (method: sections 1 and
/// 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A weight matrix of a sublayer; its neurons or attention channels are these.
    Hidden(Neurons),
    /// Token embedding or unembedding.
    Embedding,
    /// A bias of a linear layer.
    Bias,
    /// Weight of a norm.
    NormWeight,
    /// Bias of a norm.
    NormBias,
    /// Logits of the attention sinks.
    Sink,
    /// Position embeddings.
    Position,
    /// The bigram table.
    Bigram,
    /// The bias of the final logits, which is never trained.
    LogitsBias,
}

impl Kind {
    /// Whether it is a weight matrix in the sense of section 2: sparsified and decayed.
    pub fn is_matrix(self) -> bool {
        matches!(self, Self::Hidden(_) | Self::Embedding)
    }
}

/// A parameter's numbers on a device.
pub enum ParameterValue {
    /// All of them.
    Dense(Tensor),
    /// A matrix as the lists of its nonzeros.
    Sparse(Arc<SparseMatrix>),
}

/// One parameter.
pub struct Parameter {
    /// The published name.
    pub name: String,
    /// Its role.
    pub kind: Kind,
    /// Its shape; that of a linear layer's matrix is `(out, in)`.
    pub shape: Vec<usize>,
    /// Its numbers.
    pub value: ParameterValue,
}

impl Parameter {
    fn dense_of(name: String, kind: Kind, value: Tensor) -> Self {
        Self { name, kind, shape: value.shape().to_vec(), value: ParameterValue::Dense(value) }
    }

    /// The number of entries, zeros included.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tensor.
    ///
    /// # Errors
    /// [`Error::SparseParameter`].
    pub fn dense(&self) -> Result<&Tensor> {
        match &self.value {
            ParameterValue::Dense(tensor) => Ok(tensor),
            ParameterValue::Sparse(_) => Err(only_compressed(&self.name)),
        }
    }

    /// The tensor, to be changed.
    ///
    /// # Errors
    /// [`Error::SparseParameter`].
    pub fn dense_mut(&mut self) -> Result<&mut Tensor> {
        match &mut self.value {
            ParameterValue::Dense(tensor) => Ok(tensor),
            ParameterValue::Sparse(_) => Err(only_compressed(&self.name)),
        }
    }

    /// Copies the numbers to the host, the zeros of a compressed matrix included.
    ///
    /// # Errors
    /// Those of the device.
    pub fn read(&self) -> Result<HostTensor> {
        let data = match &self.value {
            ParameterValue::Dense(tensor) => tensor.read()?,
            ParameterValue::Sparse(matrix) => matrix.to_dense()?.read()?,
        };
        Ok(HostTensor { shape: self.shape.clone(), data })
    }

    /// How many entries are not zero.
    ///
    /// # Errors
    /// Those of the device.
    pub fn nonzeros(&self) -> Result<u64> {
        let count = match &self.value {
            ParameterValue::Dense(tensor) => count_nonzero::forward(tensor)?.read()?.first().copied(),
            ParameterValue::Sparse(matrix) => matrix.csr().offsets().read()?.last().copied(),
        };
        Ok(count.map_or(0, u64::from))
    }
}

fn only_compressed(name: &str) -> Error {
    Error::SparseParameter { name: name.into() }
}

/// In which form a loaded model keeps its matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightFormat {
    /// Dense, as training needs them.
    Dense,
    /// As sparse matrices where linear layers are faster with them; they then need less memory too.
    Sparse,
}

/// Where a norm's parameters are in the order of [`Parameters`].
#[derive(Clone, Copy)]
pub(super) struct NormIds {
    pub(super) weight: usize,
    pub(super) bias: Option<usize>,
}

/// Where a linear layer's parameters are in the order of [`Parameters`].
#[derive(Clone, Copy)]
pub(super) struct LinearIds {
    pub(super) weight: usize,
    pub(super) bias: Option<usize>,
}

/// Where a layer's parameters are in the order of [`Parameters`].
pub(super) struct LayerIds {
    /// Before attention and before the MLP.
    pub(super) norms: [NormIds; 2],
    /// The same of concatenated positions.
    pub(super) position_norms: Option<[NormIds; 2]>,
    /// By [`LinearLayer`].
    pub(super) linears: [LinearIds; 4],
    pub(super) sink: Option<usize>,
}

/// Where parameters are in the order of [`Parameters`], so that the forward pass needs no names.
pub(super) struct ParameterIds {
    pub(super) embedding: usize,
    pub(super) positions: usize,
    pub(super) layers: Vec<LayerIds>,
    pub(super) final_norm: NormIds,
    pub(super) unembedding: usize,
    pub(super) bigrams: Option<usize>,
    pub(super) logits_bias: usize,
}

impl ParameterIds {
    fn new(config: &ModelConfig, index: &HashMap<String, usize>) -> Result<Self> {
        let find = |name: String| index.get(&name).copied();
        let need = |name: String| {
            let missing = || Error::MissingTensor { holder: "the model".into(), name: name.clone() };
            find(name.clone()).ok_or_else(missing)
        };
        let norm = |name: String| {
            Ok::<_, Error>(NormIds { weight: need(format!("{name}.weight"))?, bias: find(format!("{name}.bias")) })
        };
        let linear = |layer: usize, linear: LinearLayer| {
            let name = format!("transformer.h.{layer}.{}", linear.name());
            Ok::<_, Error>(LinearIds { weight: need(format!("{name}.weight"))?, bias: find(format!("{name}.bias")) })
        };
        let layer = |i: usize| {
            let norm = |part: &str| norm(format!("transformer.h.{i}.{part}"));
            let positions = config.d_pos_emb.map(|_| Ok::<_, Error>([norm("ln_p1")?, norm("ln_p2")?]));
            Ok(LayerIds {
                norms: [norm("ln_1")?, norm("ln_2")?],
                position_norms: positions.transpose()?,
                linears: [
                    linear(i, LinearLayer::AttnIn)?,
                    linear(i, LinearLayer::AttnOut)?,
                    linear(i, LinearLayer::MlpIn)?,
                    linear(i, LinearLayer::MlpOut)?,
                ],
                sink: find(format!("transformer.h.{i}.attn.attn_imp.sink_logit")),
            })
        };
        Ok(Self {
            embedding: need(EMBEDDING.into())?,
            positions: need("transformer.wpe.weight".into())?,
            layers: (0..config.n_layer).map(layer).collect::<Result<_>>()?,
            final_norm: norm("transformer.ln_f".into())?,
            unembedding: need(if config.tied_unembed { EMBEDDING } else { UNEMBEDDING }.into())?,
            bigrams: find("bigram_table".into()),
            logits_bias: need("final_logits_bias".into())?,
        })
    }
}

/// All parameters of a model, in a fixed order.
pub struct Parameters {
    list: Vec<Parameter>,
    index: HashMap<String, usize>,
    pub(super) ids: ParameterIds,
    /// Whether it was loaded with numbers that are not finite.
    pub(crate) loaded_not_finite: bool,
}

/// Name, role, shape and standard deviation at the start of one parameter.
struct ParameterSpec {
    name: String,
    kind: Kind,
    shape: Vec<usize>,
    start: Start,
}

enum Start {
    Normal(f32),
    Uniform(f32),
    Constant(f32),
}

fn specs(config: &ModelConfig) -> Vec<ParameterSpec> {
    let (d, input) = (config.d_model, config.input_width());
    let (heads, mlp, vocab) = (config.attention_width(), config.mlp_width(), config.vocab_size);
    let residual = 0.02 / (2.0 * config.n_layer as f32).sqrt();
    let mut specs = Vec::new();
    let mut add = |name: String, kind, shape: &[usize], start| {
        specs.push(ParameterSpec { name, kind, shape: shape.to_vec(), start });
    };
    add(EMBEDDING.into(), Kind::Embedding, &[vocab, d], Start::Normal(0.02));
    let position_width = config.d_pos_emb.unwrap_or(d);
    add("transformer.wpe.weight".into(), Kind::Position, &[config.block_size, position_width], Start::Constant(0.0));
    for i in 0..config.n_layer {
        let name = |part: &str| format!("transformer.h.{i}.{part}");
        let mut norm = |part: &str, width: usize| {
            add(name(&format!("{part}.weight")), Kind::NormWeight, &[width], Start::Constant(1.0));
            if !config.rms_norm && config.ln_bias {
                add(name(&format!("{part}.bias")), Kind::NormBias, &[width], Start::Constant(0.0));
            }
        };
        norm("ln_1", d);
        norm("ln_2", d);
        if let Some(width) = config.d_pos_emb {
            norm("ln_p1", width);
            norm("ln_p2", width);
        }
        let mut linear = |part: &str, neurons, out: usize, input: usize, std| {
            add(name(&format!("{part}.weight")), Kind::Hidden(neurons), &[out, input], Start::Normal(std));
            if config.bias {
                add(name(&format!("{part}.bias")), Kind::Bias, &[out], Start::Constant(0.0));
            }
        };
        linear("attn.c_attn", Neurons::Rows, 3 * heads, input, 0.02);
        linear("attn.c_proj", Neurons::Columns, d, heads, residual);
        linear("mlp.c_fc", Neurons::Rows, mlp, input, 0.02);
        linear("mlp.c_proj", Neurons::Columns, d, mlp, residual);
        if config.sink {
            add(name("attn.attn_imp.sink_logit"), Kind::Sink, &[config.n_head], Start::Constant(0.0));
        }
    }
    add("transformer.ln_f.weight".into(), Kind::NormWeight, &[d], Start::Constant(1.0));
    if !config.rms_norm && config.ln_bias {
        add("transformer.ln_f.bias".into(), Kind::NormBias, &[d], Start::Constant(0.0));
    }
    if !config.tied_unembed {
        add(UNEMBEDDING.into(), Kind::Embedding, &[vocab, d], Start::Normal(0.02));
    }
    if config.enable_bigram_table {
        add("bigram_table".into(), Kind::Bigram, &[vocab, vocab], Start::Uniform(0.02));
    }
    add("final_logits_bias".into(), Kind::LogitsBias, &[vocab], Start::Constant(0.0));
    specs
}

fn prefer_sparse(device: &Device, data: &[f32]) -> bool {
    let nonzeros = data.par_iter().filter(|v| **v != 0.0).count();
    sparse_linear::prefer_sparse(device, nonzeros as f64 / data.len().max(1) as f64)
}

/// The random numbers of one stream of a seed.
fn stream_of(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}

/// Normal numbers of standard deviation `std` from one stream of a seed, by Box and Muller's
/// method.
pub(crate) fn fill_normal((seed, stream): (u64, u64), std: f32, out: &mut [f32]) {
    let mut rng = stream_of(seed, stream);
    for pair in out.chunks_mut(2) {
        // 1 − u is in (0, 1], so that the logarithm is finite.
        let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
        let (radius, angle) = ((-2.0 * u.ln()).sqrt(), std::f64::consts::TAU * v);
        pair[0] = (radius * angle.cos()) as f32 * std;
        if let Some(second) = pair.get_mut(1) {
            *second = (radius * angle.sin()) as f32 * std;
        }
    }
}

impl Parameters {
    /// Parameters as training starts: normal(0, 0.02) for linears and embeddings, normal(0,
    /// 0.02/√(2·n_layer)) for residual projections, biases 0, norms 1, sinks 0, positions 0, bigram
    /// table uniform(0, 0.02).
    ///
    /// Every parameter has its own random stream, so that its numbers depend on the seed, its
    /// place and nothing else; they are the same on every device.
    ///
    /// # Errors
    /// The device's limits, naming the parameter.
    pub fn initialise(config: &ModelConfig, seed: u64, device: &Device) -> Result<Self> {
        let mut list = Vec::new();
        for (stream, spec) in specs(config).into_iter().enumerate() {
            let stream = stream as u64;
            let value = device.upload_with(&spec.name, &spec.shape, |data| match spec.start {
                Start::Normal(std) => fill_normal((seed, stream), std, data),
                Start::Uniform(top) => {
                    let mut rng = stream_of(seed, stream);
                    data.iter_mut().for_each(|v| *v = rng.random::<f32>() * top);
                }
                Start::Constant(value) => data.fill(value),
            })?;
            list.push(Parameter::dense_of(spec.name, spec.kind, value));
        }
        Self::from_list(config, list)
    }

    /// Parameters from a state dict, read one after the other; those that [`check_weights`] lets be
    /// absent are zeros. Numbers that are not finite are logged as warnings, and every forward pass
    /// is then checked.
    ///
    /// # Errors
    /// Those of [`check_weights`] and [`check_tied`], before any number is read; then those of the
    /// source and the device.
    pub fn load(
        config: &ModelConfig,
        source: &dyn TensorSource,
        format: WeightFormat,
        device: &Device,
    ) -> Result<Self> {
        check_weights(config, source)?;
        check_tied(config, source)?;
        let (mut list, mut loaded_not_finite) = (Vec::new(), false);
        for spec in specs(config) {
            let host = if source.entries().contains_key(&spec.name) {
                source.read(&spec.name)?
            } else {
                HostTensor { data: vec![0.0; spec.shape.iter().product()], shape: spec.shape.clone() }
            };
            let not_finite = NotFinite::find(&spec.name, &spec.shape, &host.data);
            if let Some(found) = &not_finite {
                tracing::warn!("{found}: what depends on it is not finite either");
                loaded_not_finite = true;
            }
            let linear = matches!(spec.kind, Kind::Hidden(_)) || spec.name == UNEMBEDDING;
            // Products with nonzeros skip activations of 0 too, and 0 times NaN is not 0.
            let sparse = format == WeightFormat::Sparse && not_finite.is_none();
            list.push(match spec.shape[..] {
                [out, input] if linear && sparse && prefer_sparse(device, &host.data) => Parameter {
                    value: ParameterValue::Sparse(Arc::new(compress::from_host(device, (out, input), &host.data)?)),
                    name: spec.name,
                    kind: spec.kind,
                    shape: spec.shape,
                },
                _ => {
                    let value = device.upload(&spec.name, &spec.shape, &host.data)?;
                    Parameter::dense_of(spec.name, spec.kind, value)
                }
            });
        }
        Ok(Self { loaded_not_finite, ..Self::from_list(config, list)? })
    }

    /// As [`Parameters::load`], dense, from tensors in memory.
    ///
    /// # Errors
    /// Those of [`Parameters::load`].
    pub fn from_host(config: &ModelConfig, tensors: BTreeMap<String, HostTensor>, device: &Device) -> Result<Self> {
        Self::load(config, &InMemory::from(tensors), WeightFormat::Dense, device)
    }

    /// Copies all parameters to the host, by name; a tied unembedding is written out as the
    /// published files do.
    ///
    /// # Errors
    /// Those of the device.
    pub fn to_host(&self) -> Result<BTreeMap<String, HostTensor>> {
        let mut tensors = BTreeMap::new();
        for p in &self.list {
            tensors.insert(p.name.clone(), p.read()?);
        }
        if let (None, Some(wte)) = (tensors.get(UNEMBEDDING), tensors.get(EMBEDDING)) {
            tensors.insert(UNEMBEDDING.into(), wte.clone());
        }
        Ok(tensors)
    }

    /// Names and shapes of all parameters that a model of `config` has, without making them.
    pub fn shapes(config: &ModelConfig) -> Vec<(String, Kind, Vec<usize>)> {
        specs(config).into_iter().map(|s| (s.name, s.kind, s.shape)).collect()
    }

    fn from_list(config: &ModelConfig, list: Vec<Parameter>) -> Result<Self> {
        let index = list.iter().enumerate().map(|(i, p)| (p.name.clone(), i)).collect();
        Ok(Self { ids: ParameterIds::new(config, &index)?, list, index, loaded_not_finite: false })
    }

    /// The name of the parameter at that place in the order, for messages.
    pub(super) fn name(&self, id: usize) -> String {
        self.list.get(id).map(|p| p.name.clone()).unwrap_or_default()
    }

    /// All parameters in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Parameter> {
        self.list.iter()
    }

    /// All parameters in order, to be changed.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Parameter> {
        self.list.iter_mut()
    }

    /// As [`Parameters::iter`], as a slice.
    pub fn as_slice(&self) -> &[Parameter] {
        &self.list
    }

    /// As [`Parameters::iter_mut`], as a slice.
    pub fn as_mut_slice(&mut self) -> &mut [Parameter] {
        &mut self.list
    }

    /// Moves those that are dense into memory that a GPU can bind as one, so that a kernel reaches
    /// several. Elsewhere they stay.
    ///
    /// # Errors
    /// Those of the device.
    pub(crate) fn gather(&mut self) -> Result<()> {
        let dense = self.list.iter_mut().filter_map(|p| match &mut p.value {
            ParameterValue::Dense(tensor) if !tensor.device().is_cpu() => Some((p.name.as_str(), tensor)),
            _ => None,
        });
        let mut dense: Vec<_> = dense.collect();
        let Some(device) = dense.first().map(|(_, tensor)| tensor.device().clone()) else { return Ok(()) };
        let shapes: Vec<_> = dense.iter().map(|(name, tensor)| (*name, tensor.shape())).collect();
        let gathered = device.empty_together(&shapes)?;
        for ((_, tensor), mut part) in dense.iter_mut().zip(gathered) {
            part.copy_from(tensor)?;
            **tensor = part;
        }
        Ok(())
    }

    /// How many parameter tensors there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The index of the parameter of that name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// The parameter of that name.
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.list.get(self.position(name)?)
    }
}

//! What can be computed: one file per operation, named as its shader in `shaders/`.
//!
//! Each file holds the operation's shapes and errors, its method of [`crate::tape::Tape`] with its
//! gradient rule and what it saves, the parameters and launches of its WGSL kernels, and the same
//! computation for the CPU. Every function runs on the device of its tensors. Reductions accumulate
//! in a fixed order, so that the same inputs on the same device give the same bits.
//!
//! Every function returns [`Error::Shape`] if shapes do not fit together, and otherwise the errors of
//! `device::Device::empty` and of the device; those documented are further ones.
//!
//! Shapes are written as in `x: (N, C)`; "rows" are all dimensions but the last taken together.

pub mod abs_topk;
pub mod adam;
pub mod add;
pub mod affine;
pub mod attention;
pub mod attention_decode;
pub mod compress;
pub mod concat;
pub mod count_nonzero;
pub mod cross_entropy;
mod elementwise;
pub mod embedding;
pub mod gate;
pub mod gelu;
pub mod gelu_tanh;
pub mod grad_rms;
pub mod kl;
pub mod layer_norm;
pub mod linear;
pub mod logit_diff;
mod math;
pub mod nmse;
mod norm;
mod pack;
pub mod relu;
mod reshape;
pub mod rms_norm;
pub mod sparse_linear;
pub mod threshold;
mod together;
pub mod topk_logits;
mod transpose;
pub mod weight_topk;

use crate::device::{Element, Shader, Tensor};
use crate::{Error, Result};

/// Every shader of the library, for tests and tools that go through all of them.
pub const SHADERS: &[&Shader] = &[
    &abs_topk::SHADER,
    &adam::SHADER,
    &add::SHADER,
    &affine::SHADER,
    &attention::SHADER,
    &attention_decode::SHADER,
    &concat::SHADER,
    &compress::SHADER,
    &logit_diff::SHADER,
    &count_nonzero::SHADER,
    &cross_entropy::SHADER,
    &embedding::SHADER,
    &gate::SHADER,
    &gelu::SHADER,
    &gelu_tanh::SHADER,
    &grad_rms::SHADER,
    &kl::SHADER,
    &layer_norm::SHADER,
    &linear::SHADER,
    &topk_logits::SHADER,
    &nmse::SHADER,
    &relu::SHADER,
    &rms_norm::SHADER,
    &sparse_linear::SHADER,
    &threshold::SHADER,
    &weight_topk::SHADER,
];

/// Returns an error if `tensor` has another shape than `shape`.
fn expect_shape<T: Element>(op: &'static str, name: &str, tensor: &Tensor<T>, shape: &[usize]) -> Result<()> {
    if tensor.shape() == shape {
        return Ok(());
    }
    Err(Error::shape(op, format!("{name} is {:?}, expected {shape:?}", tensor.shape())))
}

/// Returns an error if the shapes of `a` and `b` differ.
fn expect_same<T: Element, U: Element>(op: &'static str, a: &Tensor<T>, b: &Tensor<U>) -> Result<()> {
    if a.shape() == b.shape() {
        return Ok(());
    }
    Err(Error::shape(op, format!("shapes {:?} and {:?} differ", a.shape(), b.shape())))
}

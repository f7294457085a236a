//! Every operation against plain float64 loops, forward and backward, on both devices.

#[path = "../common/mod.rs"]
mod common;

mod abs_topk;
mod adam;
mod add;
mod affine;
mod attention;
mod attention_decode;
mod comparators;
mod compress;
mod concat;
mod count_nonzero;
mod cross_entropy;
mod embedding;
mod gate;
mod gelu;
mod gelu_tanh;
mod grad_rms;
mod kl;
mod layer_norm;
mod linear;
mod logit_diff;
mod nmse;
mod relu;
mod rms_norm;
mod shaders;
mod sparse_linear;
mod threshold;
mod topk_logits;
mod weight_topk;

//! What training bridges needs, before it starts.

use super::BridgeTrainer;
use crate::Result;
use crate::device::Device;
use crate::model::{Model, ModelConfig};
use crate::observer::Observer;
use crate::train::bridge::EncoderKind;
use crate::train::config::RunConfig;
use crate::train::estimate::{DeviceBytes, Estimate, or_roughly, rehearse};
use crate::train::run::Trainable;

/// Estimates a run on `device` that trains a sparse model together with bridges to a dense one, as
/// [`Estimate::new`] does.
///
/// # Errors
/// Those of [`Estimate::new`] and [`BridgeTrainer::new`].
pub fn estimate(config: &RunConfig, dense: &ModelConfig, device: &Device) -> Result<Estimate> {
    let sparse = &config.model;
    let number = |n: usize| n as u64;
    let times = |a: u64, b: u64| a.saturating_mul(b);
    let sites = number(sparse.residual_sites());
    let thresholds = config.bridge.as_ref().is_some_and(|bridge| bridge.encoder == EncoderKind::Threshold);
    let vectors = number(dense.d_model + sparse.d_model + if thresholds { sparse.d_model } else { 0 });
    let maps =
        times(sites, times(2 * number(dense.d_model), number(sparse.d_model))).saturating_add(times(sites, vectors));
    let tokens = number(config.train.batch_size.saturating_mul(sparse.block_size));
    let mut estimate = Estimate::new(config, device)?;
    let gradients = times(maps.saturating_add(estimate.gradients), 4);
    let step =
        |trainer: &mut BridgeTrainer, batches: &[Vec<u32>]| trainer.step(batches, &Observer::default()).map(drop);
    let prepare = |config: &RunConfig, device: &Device, sparse| {
        let dense = Model::new(dense.clone(), 0, device)?;
        BridgeTrainer::start(sparse, dense, config.bridge.clone().unwrap_or_default(), 0, String::new())
    };
    let rehearsed = rehearse(config, device.is_cpu(), prepare, BridgeTrainer::sparse_mut, step);
    let DeviceBytes { state, total } = or_roughly(rehearsed, config)?;
    // The bridges' gradients, and the sparse model's once more.
    estimate.state_bytes = state.saturating_add(gradients).min(total);
    estimate.activation_bytes = total - estimate.state_bytes;
    if device.is_cpu() && config.bridge.as_ref().is_some_and(|bridge| bridge.kl_top_renormalize) {
        // Logits of few tokens have gradients then. Their product with the hybrids' streams, which
        // skips the others, copies these into panels of 64 channels.
        let streams = times(times(tokens, sites), number(sparse.d_model.next_multiple_of(64)));
        estimate.activation_bytes = estimate.activation_bytes.saturating_add(times(streams, 4));
    }
    estimate.gradients = estimate.gradients.saturating_add(maps);
    estimate.host_bytes = estimate.host_bytes.saturating_add(times(maps, 12));
    let logits = times(times(tokens, sites), times(number(sparse.vocab_size), 4));
    // Layers and vocabulary are the dense model's.
    let lower = "train.batch_size (raise train.accumulate instead) or model.block_size";
    estimate.see_tensor(format!("logits of {sites} hybrids ({tokens} tokens)"), logits, lower);
    Ok(estimate)
}

//! What training bridges needs, before it starts.

use crate::model::ModelConfig;
use crate::train::config::RunConfig;
use crate::train::estimate::{Estimate, PerToken};

/// Estimates a run that trains a sparse model together with bridges to a dense one. Counted as [`Estimate::new`] counts, with as many
/// copies of a layer's activations as hybrids run through it.
pub fn estimate(config: &RunConfig, dense: &ModelConfig) -> Estimate {
    let sparse = &config.model;
    let number = |n: usize| n as u64;
    let (sites, layers) = (number(sparse.residual_sites()), number(sparse.n_layer));
    let (d, s, vocab) = (number(dense.d_model), number(sparse.d_model), number(sparse.vocab_size));
    let times = |a: u64, b: u64| a.saturating_mul(b);
    let hybrids = |model: &ModelConfig| {
        let PerToken { layer, head } = PerToken::of(model);
        // Layer i is entered by 2i + 1 hybrids and left by 2i + 2; on their way they are laid out anew at each site.
        let through = times(layer, times(layers, layers).saturating_add(layers.div_ceil(2)));
        let stacks = times(number(model.d_model), times(sites, sites.saturating_add(1)) / 2);
        let maps = times(sites, d + 2 * s);
        through.saturating_add(times(head, sites)).saturating_add(stacks).saturating_add(maps)
    };
    // The predictions, and those that the hybrids are to make where these are others.
    let predictions = if config.bridge.as_ref().is_some_and(|bridge| bridge.kl_top.is_some()) { 2 } else { 1 };
    let alone = times(sites, d).saturating_add(times(vocab, predictions));
    let tokens = number(config.train.batch_size.saturating_mul(sparse.block_size));
    let mut estimate = Estimate::new(config);
    // The hybrids of one model are done before those of the other begin.
    let more = times(tokens, hybrids(sparse).max(hybrids(dense)).saturating_add(alone));
    estimate.activation_bytes = estimate.activation_bytes.saturating_add(times(more, 4));
    let maps = times(sites, times(2 * d, s).saturating_add(d + s));
    let frozen = Estimate::parameters_of(dense);
    // Weights, gradients and two moments of the bridges, the frozen weights, and the sparse model's gradients once more.
    let state = times(maps, 16).saturating_add(times(frozen, 4)).saturating_add(times(estimate.parameters, 4));
    estimate.state_bytes = estimate.state_bytes.saturating_add(state);
    estimate.gradients = estimate.gradients.saturating_add(maps);
    estimate.host_bytes = estimate.host_bytes.saturating_add(times(maps, 12));
    let needed = times(times(tokens, sites), vocab * 4);
    // Layers and vocabulary are the dense model's.
    let lower = "train.batch_size (raise train.accumulate instead) or model.block_size";
    estimate.see_tensor(format!("logits of {sites} hybrids ({tokens} tokens)"), needed, lower);
    estimate
}

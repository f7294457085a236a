//! Steps 4 and 5 of a training step: weight top-k and decay (method: section 2).

use std::sync::Arc;

use crate::Result;
use crate::model::{Kind, Parameter};
use crate::ops::compress::SparseMatrix;
use crate::ops::weight_topk::{self, Neurons, Rule};
use crate::ops::{compress as compress_op, sparse_linear};

use super::Schedule;

/// How many entries of a parameter of `numel` survive at the given densities, if the rules limit
/// them at all: `floor(density · numel)`.
fn keep(kind: Kind, numel: usize, density: f64, embed_density: f64, sparse_biases: bool) -> Option<usize> {
    let density = match kind {
        Kind::Hidden(_) => density,
        Kind::Embedding => embed_density,
        Kind::Bias if sparse_biases => embed_density,
        _ => return None,
    };
    Some((density * numel as f64).floor() as usize)
}

/// How many entries of a parameter survive the update of `step` of `steps`, if the rules limit them
/// at all.
pub fn kept(p: &Parameter, schedule: &Schedule, (step, steps): (u64, u64)) -> Option<usize> {
    let (density, embed_density) = (schedule.density(step, steps), schedule.embed_density(step, steps));
    keep(p.kind, p.len(), density, embed_density, schedule.sparse_biases)
}

/// For each of `shapes`, how many entries survive at the schedule's targets (all, where the rules
/// do not reach).
pub fn keep_counts(shapes: &[(String, Kind, Vec<usize>)], schedule: &Schedule) -> Vec<usize> {
    shapes
        .iter()
        .map(|(_, kind, shape)| {
            let numel = shape.iter().product();
            let (hidden, embed) = (schedule.target_density, schedule.embed_target_density);
            keep(*kind, numel, hidden, embed, schedule.sparse_biases).unwrap_or(numel)
        })
        .collect()
}

/// Keeps the largest weights of each parameter at the densities of `step`, zeroes the others, and
/// decays the kept entries of a weight matrix: `w -= weight_decay · lr · w`.
///
/// # Errors
/// Those of [`weight_topk::apply_all`].
pub fn apply_topk_and_decay(
    parameters: &mut [Parameter],
    schedule: &Schedule,
    (step, steps): (u64, u64),
    weight_decay_lr: f32,
) -> Result<()> {
    let (density, embed_density) = (schedule.density(step, steps), schedule.embed_density(step, steps));
    let mut ruled = Vec::new();
    for p in parameters {
        let (kind, numel) = (p.kind, p.len());
        let Some(keep) = keep(kind, numel, density, embed_density, schedule.sparse_biases) else { continue };
        let neurons: Option<Neurons> = if let Kind::Hidden(neurons) = kind { Some(neurons) } else { None };
        let decay = if kind.is_matrix() { weight_decay_lr } else { 0.0 };
        if keep < numel || decay != 0.0 {
            ruled.push((p.dense_mut()?, Rule { keep, min_alive: schedule.min_alive, neurons, decay }));
        }
    }
    weight_topk::apply_all(&mut ruled)
}

/// The sparse forms of matrices at the densities of `step`, if `requested`, or by default where
/// they make linear layers faster on their device; of other parameters nothing.
///
/// # Errors
/// Those of [`compress_op::forward_all`].
pub fn compress(
    parameters: &[Parameter],
    schedule: &Schedule,
    (step, steps): (u64, u64),
    requested: Option<bool>,
) -> Result<Vec<Option<Arc<SparseMatrix>>>> {
    let (density, embed_density) = (schedule.density(step, steps), schedule.embed_density(step, steps));
    let (mut chosen, mut places) = (Vec::new(), Vec::new());
    for (place, p) in parameters.iter().enumerate() {
        let (numel, value) = (p.len(), p.dense()?);
        let Some(keep) = keep(p.kind, numel, density, embed_density, false) else { continue };
        let prefer_sparse = || {
            let (device, density) = (value.device(), keep as f64 / numel as f64);
            match p.kind {
                Kind::Hidden(_) => sparse_linear::prefer_sparse_after_topk(device, value.rows_cols(), density),
                // The unembedding reads the final norm, which no AbsTopK follows.
                _ => sparse_linear::prefer_sparse(device, density),
            }
        };
        if p.kind.is_matrix() && requested.unwrap_or_else(prefer_sparse) {
            chosen.push((value, keep));
            places.push(place);
        }
    }
    let mut forms = vec![None; parameters.len()];
    for (place, form) in places.into_iter().zip(compress_op::forward_all(&chosen)?) {
        forms[place] = Some(Arc::new(form));
    }
    Ok(forms)
}

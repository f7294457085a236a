//! How much each node matters to the task loss, by gradients (method: section 4): the baselines of
//! learned gates.

use super::gates::Gates;
use super::prune::loss_backward;
use super::task_batch::LOGIT_DIFF;
use super::{Nodes, TaskBatch, Weighted};
use crate::Result;
use crate::device::Tensor;
use crate::model::{Hooks, Site, first_not_finite};
use crate::ops::gate::slope;
use crate::tape::{Tape, Var};

/// Points between the means and the activations that integrated gradients are taken at.
pub const POINTS: usize = 16;

/// `Σ gradient × (activation − mean)` of every node, over positions and pairs, in nats: the loss's
/// change, to first order, if the node is not ablated.
///
/// # Errors
/// [`Error::NonFiniteSite`](crate::Error::NonFiniteSite) if a difference is not finite; those of the
/// forward pass.
pub fn attribution(model: Weighted, nodes: &Nodes, task_batch: &TaskBatch) -> Result<Vec<f64>> {
    gradient_at(1.0, model, nodes, task_batch)
}

/// Integrated gradients (Sundararajan et al. 2017, [arXiv 1703.01365](https://arxiv.org/abs/1703.01365)):
/// the same gradients, averaged over [`POINTS`] models between the one in which every node has its
/// mean and the whole one. In all they sum to the difference of these two models' losses, in nats.
///
/// # Errors
/// As [`attribution`].
pub fn integrated_gradients(model: Weighted, nodes: &Nodes, task_batch: &TaskBatch) -> Result<Vec<f64>> {
    let mut sums = vec![0.0; nodes.layout.len()];
    for point in 0..POINTS {
        let alpha = (point as f32 + 0.5) / POINTS as f32;
        let gradient = gradient_at(alpha, model, nodes, task_batch)?;
        sums.iter_mut().zip(gradient).for_each(|(sum, gradient)| *sum += gradient / POINTS as f64);
    }
    Ok(sums)
}

/// The derivative of the loss by each node's share α of its activation, `α x + (1 − α) mean`, where
/// that of all nodes is `alpha`.
fn gradient_at(alpha: f32, model: Weighted, nodes: &Nodes, task_batch: &TaskBatch) -> Result<Vec<f64>> {
    let mut tape = Tape::new();
    let mut mix = Mixed { nodes, gates: nodes.learn(&mut tape, &vec![1.0; nodes.layout.len()], 1.0)?, alpha };
    let z = task_batch.logit_diffs_on_tape(model, &mut tape, &mut mix)?;
    let values = z.value().read()?;
    if first_not_finite(&values).is_some() {
        let all = vec![true; nodes.layout.len()];
        task_batch.check_finite((LOGIT_DIFF, &values), model, &mut nodes.keep(&all)?)?;
    }
    loss_backward(model, &mut tape, &z, &values)?;
    // A gate's gradient is Σ dy · α (x − mean), times the slope of its sigmoid.
    let scale = f64::from(alpha) * f64::from(slope(1.0, 1.0));
    Ok(mix.gates.gradient(&mut tape)?.into_iter().map(|g| f64::from(g) / scale).collect())
}

/// Every node between its mean and its activation.
struct Mixed<'a> {
    nodes: &'a Nodes,
    gates: Gates<'a>,
    alpha: f32,
}

impl Hooks for Mixed<'_> {
    fn on_activation(&mut self, tape: &mut Tape, site: Site, value: Var) -> Result<Var> {
        let Some(block) = self.nodes.layout.block(site).filter(|_| self.alpha < 1.0) else {
            return self.gates.on_activation(tape, site, value);
        };
        let (shape, device) = (value.value().shape().to_vec(), value.value().device().clone());
        let rows = value.value().len() / block.width.max(1);
        let shift = self.nodes.means[block.range()].iter().map(|mean| (1.0 - self.alpha) * mean);
        let shift: Vec<f32> = std::iter::repeat_n(shift.collect::<Vec<_>>(), rows).flatten().collect();
        let constant = |data: &[f32]| -> Result<Tensor> { device.upload("mixture", &shape, data) };
        let mixed = tape.affine(&value, constant(&vec![self.alpha; shift.len()])?, &constant(&shift)?)?;
        self.gates.on_activation(tape, site, mixed)
    }
}

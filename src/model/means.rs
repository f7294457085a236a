//! Mean activations over many sequences.

use std::collections::BTreeMap;

use super::{Batch, Model, NoHooks, Pass, Recorder, Site, Weights};
use crate::Result;
use crate::ops::linear;
use crate::tape::Tape;

/// The mean activation of every channel of `sites`, over all positions of `batches`. Without
/// `finite`, of whatever the sites hold: means of numbers that are not finite are not finite either.
///
/// # Errors
/// With `finite`, [`crate::Error::NonFiniteSite`] where a mean is not finite; those of the batches
/// and of the forward pass.
pub fn means(
    model: &Model,
    batches: impl IntoIterator<Item = Result<Batch>>,
    sites: &[Site],
    finite: bool,
) -> Result<BTreeMap<Site, Vec<f32>>> {
    let weights = Weights::constant(model, &[]);
    let mut sums: BTreeMap<Site, Vec<f64>> = BTreeMap::new();
    let mut count = 0;
    for batch in batches {
        let batch = batch?;
        let (mut tape, mut recorder) = (Tape::new(), Recorder::of(sites.iter().copied()));
        let pass = Pass::new(model, &weights, &batch, &mut tape, &mut recorder);
        let mut pass = if finite { pass } else { pass.unchecked() };
        pass.logits()?;
        for (site, value) in recorder.values {
            let sum = linear::backward_bias(value.value())?.read()?;
            if finite {
                model.check_finite(format!("the sum over {site}"), &sum, &weights, &batch, &mut NoHooks)?;
            }
            let total = sums.entry(site).or_insert_with(|| vec![0.0; sum.len()]);
            total.iter_mut().zip(&sum).for_each(|(t, &s)| *t += f64::from(s));
        }
        let (sequences, length) = batch.shape();
        count += sequences * length;
    }
    let mean = |sum: Vec<f64>| sum.into_iter().map(|s| (s / count.max(1) as f64) as f32).collect();
    Ok(sums.into_iter().map(|(site, sum)| (site, mean(sum))).collect())
}

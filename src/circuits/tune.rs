//! Pruning's hyper-parameters by random search around given ones (method: section 4).

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::find::{Finder, Found, Ranking, Watch};
use super::prune::Settings;
use super::tasks::Task;
use super::{graph, parallel};
use crate::{Error, Result};

/// Prunes with the given settings and with `trials` random ones, and returns the smallest circuit with its settings: the one
/// with the fewest nodes and edges together, of equals the one with the lower held-in loss.
///
/// Each trial multiplies lr, k_coef and weight_decay by random factors, log-uniform between 1/10 and 10 (lr: 1/4 and 4), draws
/// the mean of tau at the start from (0, 0.5), and takes another seed. Trials depend on the seed and their number alone.
///
/// # Errors
/// Those of [`Finder::find`], if no trial succeeds.
pub fn tune(
    finder: &Finder,
    task: &Task,
    centre: &Settings,
    trials: u64,
    clean: bool,
    watch: &Watch,
) -> Result<(Found, Settings)> {
    let count = usize::try_from(trials.saturating_add(1)).unwrap_or(usize::MAX);
    let results = parallel::map(&finder.model.device, count, |trial| {
        let settings = around(centre, trial as u64);
        let found = finder.find(task, &settings, Ranking::Learned, clean, watch)?;
        let edges = graph(finder.model, &finder.nodes.layout, &found.keep)?.edges.len();
        let size = found.keep.iter().filter(|kept| **kept).count() + edges;
        tracing::debug!("{}: trial {trial}: {size} nodes and edges, {settings:?}", task.name);
        Ok((size, found, settings))
    })?;
    let mut best: Option<(usize, Found, Settings)> = None;
    let mut failure = None;
    for result in results {
        match result {
            Ok(trial) => {
                let better =
                    |best: &(usize, Found, Settings)| (trial.0, trial.1.train.circuit) < (best.0, best.1.train.circuit);
                if best.as_ref().is_none_or(better) {
                    best = Some(trial);
                }
            }
            Err(error) => failure = Some(error),
        }
    }
    match (best, failure) {
        (Some((_, found, settings)), _) => Ok((found, settings)),
        (None, Some(error)) => Err(error),
        (None, None) => Err(Error::Text(format!("{}: no trial", task.name))),
    }
}

/// The settings of a trial; the first are the given ones.
fn around(centre: &Settings, trial: u64) -> Settings {
    if trial == 0 {
        return centre.clone();
    }
    let mut rng = ChaCha8Rng::seed_from_u64(centre.seed);
    rng.set_stream(trial);
    let mut factor = |top: f64| top.powf(rng.random_range(-1.0..1.0));
    let (lr, k_coef, weight_decay) = (factor(4.0), factor(10.0), factor(10.0));
    Settings {
        lr: centre.lr * lr,
        k_coef: centre.k_coef * k_coef,
        weight_decay: centre.weight_decay * weight_decay,
        start: (rng.random_range(0.0..0.5), centre.start.1),
        seed: centre.seed.wrapping_add(trial),
        ..centre.clone()
    }
}

//! Attribution, on a model whose circuit is known by construction.

use gossamer::circuits::TaskBatch;
use gossamer::circuits::attribution::{attribution, integrated_gradients};
use gossamer::model::Weights;

use crate::common::devices;
use crate::prune::{PLANTED, nodes, pairs, planted};

/// Completeness (Sundararajan et al. 2017, proposition 1).
#[test]
fn integrated_gradients_sum_to_the_difference_of_losses() {
    for device in devices() {
        let model = planted(&device);
        let (weights, nodes) = (Weights::constant(&model, &[]), nodes(&model));
        let (model, batch) = ((&model, &weights), TaskBatch::new(&model, &pairs(16, 3)).unwrap());
        let loss = |kept: bool| {
            let keep = vec![kept; nodes.layout.len()];
            batch.logit_diffs(model, &mut nodes.keep(&keep).unwrap()).unwrap().loss(Default::default())
        };
        let want = loss(true) - loss(false);
        let scores = integrated_gradients(model, &nodes, &batch).unwrap();
        let sum: f64 = scores.iter().sum();
        assert!(want < -0.6 && (sum - want).abs() < 0.02 * want.abs(), "{sum} for {want}");
        let planted = PLANTED.map(|node| nodes.layout.number(node).unwrap());
        for n in planted {
            let without = sum - scores[n];
            assert!((without - want).abs() > 0.1, "{n} matters: {}", scores[n]);
        }
        // To first order only, a sure answer hardly depends on anything.
        let first: f64 = attribution(model, &nodes, &batch).unwrap().iter().sum();
        assert!(first <= 0.0 && first > 0.5 * want, "{first}");
    }
}

//! Norms and living neurons in the metrics, against sums in float64.

use std::collections::BTreeMap;

use gossamer::model::Batch;
use gossamer::train::norms::is_per_parameter;

use super::tiny;
use crate::common::devices;

#[test]
fn norms_are_those_of_the_gradients_and_weights() {
    for device in devices() {
        let mut trainer = tiny::trainer(&device, tiny::model(), tiny::optimizer(4), tiny::schedule());
        for step in 0..4 {
            let config = trainer.model.config.clone();
            let batch = Batch::new(&device, &config, &tiny::sequences(&config, step, 4).concat(), 4).unwrap();
            let record = trainer.step(&[batch]).unwrap();
            let rms = trainer.numbers(&record).unwrap().grad_rms;
            let norms: BTreeMap<String, f64> = trainer.norms(&record).unwrap().into_iter().collect();
            assert!(norms.keys().all(|name| is_per_parameter(name)));
            let (mut squares, mut numel) = (0.0, 0);
            for p in trainer.model.parameters.iter() {
                let Some(norm) = norms.get(&format!("weight_norm/{}", p.name)) else { continue };
                let weights = p.read().unwrap().data;
                let want = weights.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt();
                assert!((norm - want).abs() <= 1e-6 * want, "{}: {norm}, expected {want}", p.name);
                squares += norms[&format!("grad_norm/{}", p.name)].powi(2);
                numel += p.len();
            }
            let want = (squares / numel as f64).sqrt();
            assert!((rms - want).abs() <= 1e-5 * want, "{rms}, expected {want}");
            let weights = trainer.model.parameters.get("transformer.h.0.mlp.c_proj.weight").unwrap();
            let (columns, numbers) = (weights.shape[1], weights.read().unwrap().data);
            let alive = |column| numbers.iter().skip(column).step_by(columns).any(|w| *w != 0.0);
            let want = (0..columns).filter(|&column| alive(column)).count();
            assert_eq!(norms["alive/transformer.h.0.mlp.c_proj.weight"], want as f64);
            assert_eq!(norms.keys().filter(|name| name.starts_with("alive/")).count(), 8);
        }
    }
}

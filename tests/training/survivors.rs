//! What survives a step: exactly as many weights as the schedule says, and enough of every neuron.

use gossamer::model::{Kind, ModelConfig, Parameter, Parameters};
use gossamer::ops::weight_topk::Neurons;
use gossamer::sparsity::{Schedule, keep_counts};
use gossamer::train::step::Trainer;

use crate::common::devices;
use crate::tiny::{model, optimizer, schedule, step, trainer};

/// Nonzeros of each neuron.
fn alive(neurons: Neurons, shape: &[usize], data: &[f32]) -> Vec<usize> {
    let columns = shape[1];
    let count = |entries: &mut dyn Iterator<Item = &f32>| entries.filter(|v| **v != 0.0).count();
    match neurons {
        Neurons::Rows => data.chunks(columns).map(|row| count(&mut row.iter())).collect(),
        Neurons::Columns => (0..columns).map(|c| count(&mut data.iter().skip(c).step_by(columns))).collect(),
    }
}

fn check(trainer: &Trainer, schedule: &Schedule, density: f64, embed_density: f64) -> usize {
    let mut limited = 0;
    for p in trainer.model.parameters.iter() {
        let Parameter { name, kind, shape, .. } = p;
        let data = p.read().unwrap().data;
        let density = match kind {
            Kind::Hidden(_) => density,
            Kind::Embedding => embed_density,
            Kind::Bias if schedule.sparse_biases => embed_density,
            _ => continue,
        };
        let keep = (density * data.len() as f64).floor() as usize;
        let nonzeros = data.iter().filter(|v| **v != 0.0).count();
        // Biases start as zeros, which survive as such until they have moved.
        match kind {
            Kind::Bias => assert!(nonzeros <= keep, "{name}: {nonzeros} of at most {keep}"),
            _ => assert_eq!(nonzeros, keep, "step {}, {name}", trainer.steps_done() - 1),
        }
        limited += usize::from(keep < data.len());
        if let Kind::Hidden(neurons) = kind {
            let alive = alive(*neurons, shape, &data);
            let min = schedule.min_alive;
            match keep >= min * alive.len() {
                true => assert!(alive.iter().all(|a| *a >= min), "{name}: {alive:?}"),
                // Too few for all: no neuron has more than its share while another's protected entries are gone.
                false => assert!(alive.iter().all(|a| *a <= min), "{name}: {alive:?}"),
            }
        }
    }
    limited
}

#[test]
fn exactly_as_many_survive_as_the_schedule_says() {
    for device in devices() {
        // At 1/20 of 128×32 entries 1 a neuron fits everywhere, 4 do not.
        for (min_alive, sparse_biases) in [(1, false), (4, true)] {
            let schedule = Schedule { min_alive, sparse_biases, ..schedule() };
            let mut trainer = trainer(&device, model(), optimizer(10), schedule.clone());
            let mut limited = 0;
            for i in 0..10u64 {
                let numbers = step(&mut trainer).unwrap();
                // Falls from step 1 to step 7.
                let progress = (i as f64 - 1.0).clamp(0.0, 6.0) / 6.0;
                let (density, embed) = (1.0 - 0.95 * progress, 1.0 - 0.9 * progress);
                assert!((numbers.density - density).abs() < 1e-12 && (numbers.embed_density - embed).abs() < 1e-12);
                limited += check(&trainer, &schedule, numbers.density, numbers.embed_density);
            }
            let shapes = Parameters::shapes(&trainer.model.config);
            for (p, keep) in trainer.model.parameters.iter().zip(keep_counts(&shapes, &schedule)) {
                let nonzeros = p.read().unwrap().data.iter().filter(|v| **v != 0.0).count();
                assert!(!p.kind.is_matrix() || nonzeros == keep, "{}: {nonzeros}, announced {keep}", p.name);
            }
            // Ten matrices, and eight biases where they count, in the eight steps after the first two.
            assert_eq!(limited, if sparse_biases { 18 * 8 } else { 10 * 8 });
        }
    }
}

#[test]
fn keep_counts_are_floors_at_the_targets() {
    let shapes = Parameters::shapes(&model());
    let counts = keep_counts(&shapes, &Schedule { sparse_biases: true, ..schedule() });
    let plain = keep_counts(&shapes, &schedule());
    let of = |counts: &[usize], name: &str| counts[shapes.iter().position(|(n, ..)| n == name).unwrap()];
    for (name, keep, without) in [
        ("transformer.wte.weight", 128, 128),
        ("lm_head.weight", 128, 128),
        ("transformer.h.0.attn.c_attn.weight", 153, 153),
        ("transformer.h.1.attn.c_proj.weight", 51, 51),
        ("transformer.h.1.mlp.c_fc.weight", 204, 204),
        ("transformer.h.0.mlp.c_proj.weight", 204, 204),
        ("transformer.h.0.attn.c_attn.bias", 9, 96),
        ("transformer.h.0.mlp.c_fc.bias", 12, 128),
        ("transformer.h.0.attn.attn_imp.sink_logit", 4, 4),
        ("transformer.ln_f.weight", 32, 32),
        ("transformer.wpe.weight", 512, 512),
        ("bigram_table", 1600, 1600),
        ("final_logits_bias", 40, 40),
    ] {
        assert_eq!((of(&counts, name), of(&plain, name)), (keep, without), "{name}");
    }
}

/// Only what the method decays decays, and only what it trains moves.
#[test]
fn parameters_that_are_not_trained_stay() {
    for device in devices() {
        let config = ModelConfig { learnable_bigram_table: false, ..model() };
        let mut trainer = trainer(&device, config, optimizer(4), schedule());
        let before = trainer.model.parameters.to_host().unwrap();
        for _ in 0..4 {
            step(&mut trainer).unwrap();
        }
        for (name, after) in trainer.model.parameters.to_host().unwrap() {
            let fixed = ["bigram_table", "final_logits_bias", "transformer.wpe.weight"].contains(&name.as_str());
            assert_eq!(before[&name] == after, fixed, "{name}");
        }
    }
}

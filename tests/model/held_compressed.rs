//! Models whose matrices are held as CSR and CSC: the same numbers in less memory.

use std::collections::BTreeMap;

use gossamer::device::Device;
use gossamer::files::{HostTensor, InMemory, TensorInfo, TensorSource};
use gossamer::model::{
    Batch, Kind, LossOutput, Model, ModelConfig, NoHooks, ParameterValue, Parameters, WeightFormat, Weights,
    check_shapes,
};
use gossamer::ops::compress::{self, Nonzeros};
use gossamer::sparsity::{LrDecay, Schedule};
use gossamer::tape::Tape;
use gossamer::train::config::{GradRms, OptimizerConfig};
use gossamer::train::step::Trainer;
use gossamer::{Error, Result};
use rand::RngExt;

use crate::common::{assert_close, devices, normal, put, rng, wide};
use crate::variants::{config, prompts, random_state};

type State = BTreeMap<String, HostTensor>;

/// Weights of which about this share is not zero; the embedding is as sparse as the others.
fn sparse_state(config: &ModelConfig, density: f64) -> State {
    let mut rng = rng(12);
    let mut state = random_state(config, 6);
    for (name, kind, _) in Parameters::shapes(config).into_iter().filter(|(_, kind, _)| kind.is_matrix()) {
        assert!(kind == Kind::Embedding || matches!(kind, Kind::Hidden(_)));
        for v in &mut state.get_mut(&name).unwrap().data {
            *v = if rng.random_bool(density) { *v } else { 0.0 };
        }
    }
    state
}

fn load(config: &ModelConfig, state: &State, format: WeightFormat, device: &Device) -> Model {
    let parameters = Parameters::load(config, &InMemory::from(state.clone()), format, device).unwrap();
    Model { config: config.clone(), parameters, device: device.clone() }
}

/// Logits, and the gradient of the embedding, which comes from all the layers above it.
fn numbers(model: &Model) -> [Vec<f32>; 2] {
    let (device, mut tape) = (&model.device, Tape::new());
    let weights = Weights::new(model, &mut tape, |kind| kind == Kind::Embedding, &[]);
    let batch = Batch::new(device, &model.config, &prompts(&model.config, 1, 3, 6), 3).unwrap();
    let LossOutput { loss, logits, .. } = model.forward_loss(&mut tape, &weights, &batch, &mut NoHooks).unwrap();
    tape.backward(&loss, device.upload("seed", &[1], &[1.0]).unwrap()).unwrap();
    let gradient = tape.take_gradient(weights.vars()[0].as_ref().unwrap()).unwrap();
    [logits.value().read().unwrap(), gradient.read().unwrap()]
}

const SHAPES: &str = r#""d_model": 32, "d_mlp": 96, "n_head": 4, "vocab_size": 40"#;

#[test]
fn compressed_models_compute_the_same() {
    let variants =
        ["", r#", "tied_unembed": false, "rms_norm": true, "sink": true"#, r#", "bias": false, "d_pos_emb": 5"#];
    for device in devices() {
        // Denser matrices are multiplied faster when dense.
        let threshold = if device.is_cpu() { 0.25 } else { 1.0 / 16.0 };
        for variant in variants {
            let config = config(&format!("{SHAPES}{variant}"));
            for density in [0.0, 0.02, 0.15, 1.0] {
                let what = format!("{variant} at {density} on {}", device.describe());
                let state = sparse_state(&config, density);
                let [dense, held] =
                    [WeightFormat::Dense, WeightFormat::Sparse].map(|format| load(&config, &state, format, &device));
                for p in held.parameters.iter() {
                    let linear = matches!(p.kind, Kind::Hidden(_)) || p.name == "lm_head.weight";
                    let nonzeros = state[&p.name].data.iter().filter(|v| **v != 0.0).count();
                    let sparse = nonzeros as f64 <= threshold * p.len() as f64;
                    assert_eq!(linear && density < threshold, linear && sparse, "{what}: an unlucky draw");
                    assert_eq!(matches!(p.value, ParameterValue::Sparse(_)), linear && sparse, "{what}: {}", p.name);
                    assert_eq!(p.dense().is_ok(), !(linear && sparse));
                }
                let mut back = held.parameters.to_host().unwrap();
                if config.tied_unembed {
                    back.remove("lm_head.weight");
                }
                assert_eq!(back.keys().collect::<Vec<_>>(), state.keys().collect::<Vec<_>>());
                for (name, tensor) in &back {
                    let bits = |tensor: &HostTensor| tensor.data.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                    assert_eq!(
                        (&tensor.shape, bits(tensor)),
                        (&state[name].shape, bits(&state[name])),
                        "{what}: {name}"
                    );
                }
                let ([logits, gradient], [want_logits, want_gradient]) = (numbers(&held), numbers(&dense));
                assert_close(&what, &logits, &wide(&want_logits), 1e-6);
                assert_close(&what, &gradient, &wide(&want_gradient), 1e-6);
            }
        }
    }
}

#[test]
fn compressed_models_need_less_memory() {
    let config = config(r#""d_model": 128, "d_mlp": 512, "n_head": 4, "tied_unembed": false"#);
    let state = sparse_state(&config, 0.02);
    for name in ["cpu", "gpu"] {
        let [dense, held] = [WeightFormat::Dense, WeightFormat::Sparse].map(|format| {
            let device = Device::open(name).unwrap();
            let before = device.allocated();
            let model = load(&config, &state, format, &device);
            device.sync().unwrap();
            assert!(!model.parameters.is_empty());
            device.allocated() - before
        });
        // 2·(3 + 1 + 8)·128² weights are a megabyte and a half.
        assert!(dense > 1_500_000 && 5 * held < dense, "{name}: {held} bytes, dense {dense}");
    }
}

#[test]
fn what_is_held_compressed_is_not_trained() {
    let config = config(SHAPES);
    let optimizer = OptimizerConfig {
        steps: 10,
        batch_size: 3,
        accumulate: 1,
        lr: 1e-2,
        warmup_frac: 0.1,
        sharkfin: true,
        beta1: 0.9,
        beta2: 0.95,
        eps: 0.1,
        weight_decay: 0.1,
        grad_rms: GradRms::Normalize,
        train_positions: false,
        lr_decay: LrDecay::Linear,
    };
    let schedule = Schedule {
        target_density: 0.05,
        embed_target_density: 0.1,
        anneal_start_frac: 0.1,
        anneal_stop_frac: 0.7,
        min_alive: 1,
        sparse_biases: false,
        ..Schedule::DENSE
    };
    for device in devices() {
        let model = |format| load(&config, &sparse_state(&config, 0.02), format, &device);
        let refusal = Trainer::new(model(WeightFormat::Sparse), optimizer.clone(), schedule.clone()).err().unwrap();
        let message = refusal.to_string();
        assert!(
            matches!(refusal, Error::SparseParameter { .. })
                && message.contains("c_attn.weight is stored as a sparse matrix"),
            "{message}"
        );
        assert!(Trainer::new(model(WeightFormat::Dense), optimizer.clone(), schedule.clone()).is_ok());
        let mut model = model(WeightFormat::Sparse);
        let refused = |p: &mut gossamer::model::Parameter| p.dense_mut().is_err();
        assert_eq!(model.parameters.iter_mut().filter_map(|p| refused(p).then_some(())).count(), 8);
    }
}

/// Names and shapes without the numbers.
struct NamesOnly(BTreeMap<String, TensorInfo>);

impl TensorSource for NamesOnly {
    fn entries(&self) -> &BTreeMap<String, TensorInfo> {
        &self.0
    }

    fn read(&self, name: &str) -> Result<HostTensor> {
        Err(Error::Data(format!("{name} was read")))
    }
}

#[test]
fn misfits_are_named_before_anything_is_read() {
    let config = config(r#""d_pos_emb": 3"#);
    let device = Device::cpu();
    let entries = InMemory::from(random_state(&config, 1)).entries().clone();
    let complaint = |change: &dyn Fn(&mut BTreeMap<String, TensorInfo>)| {
        let mut entries = entries.clone();
        change(&mut entries);
        let checked = check_shapes(&config, &entries).err().map(|e| e.to_string());
        let loaded = Parameters::load(&config, &NamesOnly(entries), WeightFormat::Sparse, &device).err().unwrap();
        match checked {
            Some(checked) => assert_eq!(loaded.to_string(), checked),
            None => assert_eq!(loaded.to_string(), "transformer.wte.weight was read"),
        }
        loaded.to_string()
    };
    let name = "transformer.h.1.mlp.c_fc.weight";
    assert!(complaint(&|_| ()).ends_with("was read"));
    assert_eq!(complaint(&|e| drop(e.remove(name))), format!("the file of weights lacks {name} [20, 15]"));
    let misshapen = complaint(&|e| e.get_mut(name).unwrap().shape = vec![15, 20]);
    assert_eq!(misshapen, format!("{name} has shape [15, 20], but the configuration says [20, 15]"));
    let extra = |e: &mut BTreeMap<String, TensorInfo>| drop(e.insert("bigram_table".into(), e[name].clone()));
    assert!(complaint(&extra).contains("the weights hold bigram_table"));
    // A tied unembedding may be there.
    let head = |e: &mut BTreeMap<String, TensorInfo>| {
        drop(e.insert("lm_head.weight".into(), e["transformer.wte.weight"].clone()));
    };
    assert!(complaint(&head).ends_with("was read"));
}

#[test]
fn what_older_files_lack_is_zero() {
    let config = config(r#""d_pos_emb": 3"#);
    let mut state = random_state(&config, 1);
    let absent: Vec<String> = Parameters::shapes(&config)
        .into_iter()
        .map(|(name, ..)| name)
        .filter(|name| name.ends_with("ln_p1.bias") || name.ends_with("ln_p2.bias") || name == "final_logits_bias")
        .collect();
    assert_eq!(absent.len(), 5);
    absent.iter().for_each(|name| drop(state.remove(name)));
    for device in devices() {
        for format in [WeightFormat::Dense, WeightFormat::Sparse] {
            let back = load(&config, &state, format, &device).parameters.to_host().unwrap();
            for name in &absent {
                assert!(back[name].data.iter().all(|v| v.to_bits() == 0) && !back[name].data.is_empty(), "{name}");
            }
        }
    }
}

#[track_caller]
fn assert_same(got: &Nonzeros, want: &Nonzeros) {
    assert_eq!(got.offsets().read().unwrap(), want.offsets().read().unwrap());
    assert_eq!(got.indices().read().unwrap(), want.indices().read().unwrap());
    let bits = |lists: &Nonzeros| lists.values().read().unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(got), bits(want));
}

#[test]
fn lists_made_on_the_host_are_those_made_on_the_device() {
    let mut rng = rng(3);
    for device in devices() {
        for shape in [(1, 1), (1, 70), (70, 1), (33, 130), (130, 33), (0, 3), (3, 0), (0, 0)] {
            for density in [0.0, 0.1, 1.0] {
                let mut data = normal(&mut rng, shape.0 * shape.1);
                data.iter_mut().for_each(|v| *v = if rng.random_bool(density) { *v } else { -0.0 });
                let nonzeros = data.iter().filter(|v| **v != 0.0).count();
                let got = compress::from_host(&device, shape, &data).unwrap();
                let want = compress::forward(&put(&device, &[shape.0, shape.1], &data), nonzeros).unwrap();
                assert_eq!((got.shape(), got.csr().values().len()), (shape, nonzeros));
                assert!(got.device().same(&device) && got.csc().values().device().same(&device));
                assert_same(got.csr(), want.csr());
                assert_same(got.csc(), want.csc());
                let positive: Vec<f32> = data.iter().map(|v| v + 0.0).collect();
                assert_eq!(got.to_dense().unwrap().read().unwrap(), positive);
            }
        }
        for wrong in [0, 5, 7] {
            let error = compress::from_host(&device, (2, 3), &vec![1.0; wrong]).unwrap_err().to_string();
            assert_eq!(error, format!("compress: {wrong} numbers as a matrix (2, 3)"));
        }
    }
}

//! Numbers that are not finite are found, and what they were in is named.

use gossamer::Error;
use gossamer::device::Device;
use gossamer::model::{Activation, ModelConfig, ResidualActivation};
use gossamer::train::step::Trainer;

use crate::common::devices;
use crate::tiny::{model, optimizer, schedule, step, trainer};

fn plant(trainer: &mut Trainer, name: &str, change: impl FnOnce(&mut [f32])) {
    let parameter = trainer.model.parameters.iter_mut().find(|p| p.name == name).unwrap();
    let mut data = parameter.read().unwrap().data;
    change(&mut data);
    parameter.dense_mut().unwrap().write(&data).unwrap();
}

fn after_two_steps(device: &Device, config: ModelConfig) -> Trainer {
    let mut trainer = trainer(device, config, optimizer(40), schedule());
    for _ in 0..2 {
        step(&mut trainer).unwrap();
    }
    trainer
}

/// Whatever the weight and the value: some operations lose a NaN on the way forward (ReLU, as a
/// maximum), none both ways.
#[test]
fn planted_numbers_stop_the_run() {
    let relu = ModelConfig {
        activation_type: Activation::Relu,
        residual_activation_type: ResidualActivation::Relu,
        rms_norm: false,
        afrac: None,
        ..model()
    };
    for device in devices() {
        for config in [model(), relu.clone()] {
            for name in [
                "lm_head.weight",
                "transformer.ln_f.weight",
                "transformer.h.0.attn.c_attn.weight",
                "transformer.h.1.attn.c_proj.weight",
                "transformer.h.0.mlp.c_fc.weight",
                "transformer.h.1.mlp.c_proj.bias",
                "transformer.h.1.attn.attn_imp.sink_logit",
                "transformer.wte.weight",
                "final_logits_bias",
            ] {
                let mut trainer = after_two_steps(&device, config.clone());
                plant(&mut trainer, name, |data| data.fill(f32::NAN));
                match step(&mut trainer) {
                    Err(Error::NonFinite { step: 2, tensor, .. }) => {
                        assert!(tensor == "loss" || tensor.starts_with("the gradient of "), "{tensor}");
                    }
                    other => panic!("{}: NaN in {name}: {other:?}", device.describe()),
                }
            }
        }
    }
}

/// A single NaN in one weight.
#[test]
fn one_planted_number_is_enough() {
    for device in devices() {
        let mut trainer = after_two_steps(&device, model());
        plant(&mut trainer, "transformer.h.1.mlp.c_fc.weight", |data| data[17] = f32::NAN);
        assert!(matches!(step(&mut trainer), Err(Error::NonFinite { step: 2, .. })), "{}", device.describe());
    }
}

/// The loss is as it should be, but a gradient overflows: its parameter is named, not just any.
#[test]
fn the_parameter_whose_gradient_overflows_is_named() {
    for device in devices() {
        let mut trainer = after_two_steps(&device, model());
        plant(&mut trainer, "lm_head.weight", |data| data.iter_mut().for_each(|v| *v *= 1e25));
        plant(&mut trainer, "transformer.ln_f.weight", |data| data.iter_mut().for_each(|v| *v *= 1e-25));
        match step(&mut trainer) {
            Err(Error::NonFinite { step: 2, tensor, .. }) => {
                assert_eq!(tensor, "the gradient of transformer.ln_f.weight", "{}", device.describe());
            }
            other => panic!("{other:?}"),
        }
    }
}

//! The whole model's gradients against central differences of its loss, and device against device.

use std::collections::BTreeMap;

use gossamer::device::Device;
use gossamer::model::{LossOutput, Model, ModelConfig, NoHooks, Parameters, Weights};
use gossamer::tape::Tape;

use crate::common::{assert_close, devices, normal, rng, wide};
use crate::variants::{batch, random_model, random_state, smooth};

struct Numbers {
    loss: f32,
    logits: Vec<f32>,
    gradients: BTreeMap<String, Vec<f32>>,
}

fn numbers(config: &ModelConfig, device: &Device) -> Numbers {
    let model = random_model(config, 1, device);
    let mut tape = Tape::new();
    let weights = Weights::new(&model, &mut tape, |_| true, &[]);
    let LossOutput { loss, logits, .. } =
        model.forward_loss(&mut tape, &weights, &batch(config, device), &mut NoHooks).unwrap();
    tape.backward(&loss, device.upload("seed", &[1], &[1.0]).unwrap()).unwrap();
    let gradients = model.parameters.iter().zip(weights.vars()).map(|(p, var)| {
        let gradient = var.as_ref().and_then(|var| tape.take_gradient(var));
        let gradient = gradient.unwrap_or_else(|| panic!("{} has no gradient", p.name));
        assert_eq!(gradient.shape(), p.shape, "{}", p.name);
        (p.name.clone(), gradient.read().unwrap())
    });
    let gradients = gradients.collect();
    Numbers { loss: loss.value().read().unwrap()[0], logits: logits.value().read().unwrap(), gradients }
}

/// The loss with one parameter moved, averaged in float64 over the rows.
fn loss_at(config: &ModelConfig, name: &str, data: Vec<f32>) -> f64 {
    let device = Device::cpu();
    let mut state = random_state(config, 1);
    state.get_mut(name).unwrap().data = data;
    let parameters = Parameters::from_host(config, state, &device).unwrap();
    let model = Model { config: config.clone(), parameters, device: device.clone() };
    let batch = batch(config, &device);
    let weights = Weights::constant(&model, &[]);
    let LossOutput { losses, .. } = model.forward_loss(&mut Tape::new(), &weights, &batch, &mut NoHooks).unwrap();
    wide(&losses.read().unwrap()).iter().sum::<f64>() / batch.predictions() as f64
}

/// What central differences say against these gradients, and how many comparisons could have said
/// anything.
fn objections(config: &ModelConfig, gradients: &BTreeMap<String, Vec<f32>>) -> (Vec<String>, usize) {
    const EPS: f32 = 4e-3;
    let state = random_state(config, 1);
    let (mut objections, mut telling) = (Vec::new(), 0);
    for (name, gradient) in gradients {
        for seed in 0..3 {
            // Along the signs of the gradient, so that its derivative is not lost among the
            // roundings of the loss; by random amounts, so that no entry hides behind another.
            let amounts = normal(&mut rng(seed), gradient.len());
            let direction: Vec<f32> = gradient.iter().zip(amounts).map(|(g, a)| g.signum() * a.abs()).collect();
            let length = direction.iter().map(|d| d * d).sum::<f32>().sqrt();
            let along = |step: f32| -> Vec<f32> {
                let moved = state[name].data.iter().zip(&direction);
                moved.map(|(x, d)| x + step * d / length).collect()
            };
            let (up, down) = (along(EPS), along(-EPS));
            // The moves as float32 has them, not as they were meant.
            let moves = up.iter().zip(&down).map(|(u, d)| f64::from(*u) - f64::from(*d));
            let derivative: f64 = gradient.iter().zip(moves).map(|(g, m)| f64::from(*g) * m).sum();
            let difference = loss_at(config, name, up) - loss_at(config, name, down);
            let off = (difference - derivative).abs();
            if off.is_nan() || off > 2e-2 * derivative.abs() + 2e-6 {
                objections.push(format!("{name}: {difference:.4e}, but by its gradient {derivative:.4e}"));
            }
            // Far above what the second term allows.
            telling += usize::from(derivative.abs() > 2e-5);
        }
    }
    (objections, telling)
}

#[test]
fn gradients_match_central_differences() {
    for (variant, config) in smooth() {
        let gradients = numbers(&config, &Device::cpu()).gradients;
        let (objections, telling) = objections(&config, &gradients);
        assert!(objections.is_empty(), "{variant}: {objections:?}");
        assert!(10 * telling >= 24 * gradients.len(), "{variant}: only {telling} of 3·{} telling", gradients.len());
    }
}

#[test]
fn central_differences_see_planted_errors() {
    let (_, config) = smooth().pop().unwrap();
    let gradients = numbers(&config, &Device::cpu()).gradients;
    for name in gradients.keys() {
        let mut planted = gradients.clone();
        planted.get_mut(name).unwrap().iter_mut().for_each(|g| *g *= 1.05);
        let (objections, _) = objections(&config, &planted);
        assert!(!objections.is_empty() && objections.iter().all(|o| o.starts_with(name.as_str())), "{objections:?}");
    }
}

#[test]
fn devices_agree() {
    let [cpu, gpu] = devices().try_into().unwrap();
    for (variant, config) in smooth() {
        let (want, got) = (numbers(&config, &cpu), numbers(&config, &gpu));
        let relative = (f64::from(got.loss) - f64::from(want.loss)).abs() / f64::from(want.loss);
        assert!(relative <= 1e-5, "{variant}: losses {} and {}", want.loss, got.loss);
        assert_close(variant, &got.logits, &wide(&want.logits), 2e-5);
        assert_eq!(got.gradients.len(), want.gradients.len());
        for (name, want) in &want.gradients {
            let (want, got) = (wide(want), wide(&got.gradients[name]));
            let square = |x: f64| x * x;
            let norm = want.iter().copied().map(square).sum::<f64>().sqrt();
            let off = want.iter().zip(&got).map(|(w, g)| square(w - g)).sum::<f64>().sqrt();
            assert!(norm > 1e-4 && off <= 1e-4 * norm, "{variant}, {name}: off by {off:.2e} of {norm:.2e}");
        }
    }
}

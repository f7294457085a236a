//! A short training run: loss, learning rate, densities, gradient and nonzero count of every step,
//! and the final weights with exactly the expected zeros.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::choices::Choices;
use super::golden::Case;
use super::{Comparison, LOSS, WEIGHT, Worst, largest};
use crate::Result;
use crate::device::Device;
use crate::model::Batch;
use crate::ops::count_nonzero;
use crate::train::settings::rows;
use crate::train::step::Trainer;

#[derive(Deserialize)]
struct Meta {
    hyperparameters: Map<String, Value>,
    log: Vec<Logged>,
}

#[derive(Deserialize)]
struct Logged {
    loss: f64,
    lr: f64,
    density: f64,
    embed_density: f64,
    grad_rms: f64,
    nonzero_matrix_weights: u64,
}

/// The settings of a section, of the hyperparameters that have its names.
fn section<T: DeserializeOwned>(name: &str, hyperparameters: &Map<String, Value>) -> serde_json::Result<T> {
    let rows = rows();
    let has = |key: &String| rows.iter().any(|row| row.key == format!("{name}.{key}"));
    let own = hyperparameters.iter().filter(|(key, _)| has(key)).map(|(key, value)| (key.clone(), value.clone()));
    serde_json::from_value(Value::Object(own.collect()))
}

pub(super) fn run(case: &Case, device: &Device) -> Result<Vec<Comparison>> {
    let wrong = |e: serde_json::Error| case.error(e.to_string());
    let mut meta: Meta = serde_json::from_value(case.meta()?).map_err(wrong)?;
    let (shape, tokens) = case.tokens()?;
    let &[steps, batch, _] = shape.as_slice() else {
        return Err(case.error(format!("tokens are {shape:?}, expected (steps, B, T)")));
    };
    let h = &mut meta.hyperparameters;
    let steps_of_run = h.remove("total_steps").unwrap_or_default();
    let own = [("steps", steps_of_run), ("batch_size", batch.into()), ("accumulate", 1.into())];
    h.extend(own.into_iter().chain([("train_positions", false.into())]).map(|(key, value)| (key.into(), value)));
    let (optimizer, schedule) = (section("train", h).map_err(wrong)?, section("sparsity", h).map_err(wrong)?);
    let mut trainer = Trainer::new(case.model(device)?, optimizer, schedule)?;
    let mut losses = Worst::new("losses", LOSS);
    let mut scales = Worst::new("gradient rms", LOSS);
    let mut schedules = Worst::new("lr, densities", 1e-12);
    let mut counts = Worst::new("nonzero counts", 0.0);
    let choices = Choices::of(case)?;
    let relative = |got: f64, want: f64| if want == 0.0 { got.abs() } else { ((got - want) / want).abs() };
    for (want, tokens) in meta.log.iter().zip(tokens.chunks(tokens.len() / steps.max(1))) {
        let batch = Batch::new(device, &trainer.model.config, tokens, batch)?;
        let mut sites = choices.at(trainer.steps_done());
        let record = trainer.step_with(&[batch], &mut sites, |parameters, schedule, at, decay| {
            choices.apply_topk_and_decay(parameters, schedule, at, decay)
        })?;
        let got = trainer.numbers(&record)?;
        let at = format!("step {}", got.step);
        losses.see(&at, Ok(relative(got.loss, want.loss)));
        scales.see(&at, Ok(relative(got.grad_rms, want.grad_rms)));
        for (got, want) in [(got.lr, want.lr), (got.density, want.density), (got.embed_density, want.embed_density)] {
            schedules.see(&at, Ok(relative(got, want)));
        }
        let mut nonzeros = 0;
        for p in trainer.model.parameters.iter().filter(|p| p.kind.is_matrix()) {
            nonzeros += u64::from(count_nonzero::forward(p.dense()?)?.read()?.first().copied().unwrap_or(0));
        }
        counts.see(&at, Ok(nonzeros.abs_diff(want.nonzero_matrix_weights) as f64));
    }

    let [weights, mut zeros] = compare_weights(case, &trainer)?;
    zeros.note(choices.describe());
    Ok([losses, scales, schedules, counts, weights, zeros].map(Worst::comparison).into())
}

/// The weights at the end, and which of them are zero.
fn compare_weights(case: &Case, trainer: &Trainer) -> Result<[Worst; 2]> {
    let expected = case.tensors("expected.safetensors")?;
    let got = trainer.model.parameters.to_host()?;
    let mut weights = Worst::new("weights at the end", WEIGHT);
    let mut zeros = Worst::new("zero pattern", 0.0);
    for (name, want) in &expected {
        let Some(got) = got.get(name).filter(|g| g.shape == want.shape) else {
            weights.see(name, Err("missing or of another shape".into()));
            continue;
        };
        weights.see(name, largest(&got.data, &want.data).map(|(d, scale)| if scale == 0.0 { d } else { d / scale }));
        let differ = got.data.iter().zip(&want.data).filter(|(g, w)| (**g == 0.0) != (**w == 0.0)).count();
        zeros.see(name, Ok(differ as f64));
    }
    Ok([weights, zeros])
}

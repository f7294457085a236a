//! One forward and backward pass: loss, logits, every site, and the gradients of all of them and of
//! every parameter.

use super::choices::Choices;
use super::golden::Case;
use super::{ACTIVATION, Comparison, GRADIENT, LOSS, Worst, largest, relative_largest, relative_norm};
use crate::Result;
use crate::device::{Device, Tensor};
use crate::model::{Batch, Kind, LossOutput, Recorder, Weights};
use crate::tape::Tape;

pub(super) fn run(case: &Case, device: &Device) -> Result<Vec<Comparison>> {
    let model = case.model(device)?;
    let expected = case.tensors("expected.safetensors")?;
    let (shape, tokens) = case.tokens()?;
    let batch = Batch::new(device, &model.config, &tokens, shape.first().copied().unwrap_or(1))?;

    let mut tape = Tape::new();
    let weights = Weights::new(&model, &mut tape, |kind| kind != Kind::LogitsBias, &[]);
    let choices = Choices::of(case)?;
    let mut recorder = Recorder::with_gradients(model.config.sites());
    let mut sites = (choices.at(0), &mut recorder);
    let LossOutput { loss, logits, .. } = model.forward_loss(&mut tape, &weights, &batch, &mut sites)?;
    tape.backward(&loss, device.upload("seed", &[1], &[1.0])?)?;

    let mut losses = Worst::new("loss", LOSS);
    let mut activations = Worst::new("logits, activations", ACTIVATION);
    let mut gradients = Worst::new("gradients", GRADIENT);
    let mut site_gradients = Worst::new("activation gradients", GRADIENT);
    let by_name = |name: &str| recorder.values.get(&name.parse().ok()?);
    for (name, want) in &expected {
        let read = |tensor: Option<&Tensor>| match tensor {
            Some(tensor) if tensor.shape() == want.shape => tensor.read().map_err(|e| e.to_string()),
            Some(tensor) => Err(format!("shape {:?}, expected {:?}", tensor.shape(), want.shape)),
            None => Err("not computed".into()),
        };
        let activation = |tensor| relative_largest(&read(tensor)?, &want.data);
        let gradient = |tensor: Option<Tensor>| relative_norm(&read(tensor.as_ref())?, &want.data);
        match name.split_once('/') {
            None if name == "loss" => losses.see(
                name,
                read(Some(loss.value())).and_then(|got| {
                    let (difference, scale) = largest(&got, &want.data)?;
                    Ok(difference / scale)
                }),
            ),
            None if name == "logits" => activations.see(name, activation(Some(logits.value()))),
            Some(("act", site)) => activations.see(site, activation(by_name(site).map(|v| v.value()))),
            Some(("act_grad", site)) => {
                let tensor = by_name(site).and_then(|v| tape.take_gradient(v));
                site_gradients.see(site, gradient(tensor));
            }
            Some(("grad", parameter)) => {
                let var = model.parameters.position(parameter).map(|i| &weights.vars()[i]);
                gradients.see(parameter, gradient(var.and_then(|v| tape.take_gradient(v.as_ref()?))));
            }
            _ => return Err(case.error(format!("expected.safetensors holds {name}, which is not understood"))),
        }
    }
    site_gradients.note(choices.describe());
    Ok(vec![losses.comparison(), activations.comparison(), gradients.comparison(), site_gradients.comparison()])
}

//! One forward and backward pass: loss, logits, every site, and the gradients of all of them and of every parameter.

use std::collections::BTreeMap;

use super::golden::Case;
use super::{ACTIVATION, GRADIENT, LOSS, Verdict, Worst, largest, relative_norm};
use crate::Result;
use crate::device::{Device, Tensor};
use crate::files::HostTensor;
use crate::model::{Batch, Kind, ModelConfig, Recorder, Weights};
use crate::tape::Tape;

pub(super) fn run(case: &Case, device: &Device) -> Result<Vec<Verdict>> {
    let model = case.model(device)?;
    let expected = case.tensors("expected.safetensors")?;
    let (shape, tokens) = case.tokens()?;
    let batch = Batch::new(device, &model.config, &tokens, shape.first().copied().unwrap_or(1))?;

    let mut tape = Tape::new();
    let weights = Weights::new(&model, &mut tape, |kind| kind != Kind::LogitsBias, &[]);
    let mut recorder = Recorder { gradients: true, ..Default::default() };
    let (loss, _, logits) = model.loss(&mut tape, &weights, &batch, &mut recorder)?;
    tape.backward(&loss, device.upload("seed", &[1], &[1.0])?)?;

    let mut losses = Worst::new("loss", LOSS);
    let mut activations = Worst::new("logits, activations", ACTIVATION);
    let mut gradients = Worst::new("gradients", GRADIENT);
    let mut site_gradients = Worst::new("activation gradients", GRADIENT);
    let mut left_out = 0;
    let sites: std::collections::HashMap<_, _> = recorder.sites.into_iter().collect();
    for (name, want) in &expected {
        let read = |tensor: Option<&Tensor>| match tensor {
            Some(tensor) if tensor.shape() == want.shape => tensor.read().map_err(|e| e.to_string()),
            Some(tensor) => Err(format!("shape {:?}, expected {:?}", tensor.shape(), want.shape)),
            None => Err("not computed".into()),
        };
        let activation = |tensor| {
            let (difference, scale) = largest(&read(tensor)?, &want.data)?;
            Ok(difference / (1.0 + scale))
        };
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
            Some(("act", site)) => activations.see(site, activation(sites.get(site).map(|v| v.value()))),
            Some(("act_grad", site)) => {
                let tensor = sites.get(site).and_then(|v| tape.take_gradient(v));
                let open = undetermined(&model.config, site, &expected);
                left_out += open.len();
                let got = read(tensor.as_ref()).map(|mut got| {
                    open.iter().for_each(|&i| got[i] = want.data[i]);
                    got
                });
                site_gradients.see(site, got.and_then(|got| relative_norm(&got, &want.data)));
            }
            Some(("grad", parameter)) => {
                let var = model.parameters.position(parameter).map(|i| &weights.vars()[i]);
                gradients.see(parameter, gradient(var.and_then(|v| tape.take_gradient(v))));
            }
            _ => return Err(case.error(format!("expected.safetensors holds {name}, which is not understood"))),
        }
    }
    if left_out > 0 {
        site_gradients.note(format!("({left_out} numbers left out that hang on ties of AbsTopK)"));
    }
    Ok(vec![losses.verdict(), activations.verdict(), gradients.verdict(), site_gradients.verdict()])
}

/// Entries of a residual site whose gradient is a matter of choice: where the AbsTopK of the sublayer that reads it had
/// fewer nonzero entries than it keeps, it kept some of the zeros, and which ones the method does not say.
fn undetermined(config: &ModelConfig, site: &str, expected: &BTreeMap<String, HostTensor>) -> Vec<usize> {
    let reader = match site.split_once('.') {
        Some((layer, "resid_in")) => (format!("act/{layer}.attn.act_in"), "attn_in"),
        Some((layer, "resid_mid")) => (format!("act/{layer}.mlp.act_in"), "mlp_in"),
        _ => return Vec::new(),
    };
    let (Some(x), Some(read)) = (expected.get(&format!("act/{site}")), expected.get(&reader.0)) else {
        return Vec::new();
    };
    let Some(keep) = config.kept(reader.1, config.input_width()) else { return Vec::new() };
    let (rows, width) = (read.data.chunks(config.input_width()), config.d_model);
    let tied = rows.enumerate().filter(|(_, row)| row.iter().filter(|v| **v != 0.0).count() < keep);
    tied.flat_map(|(r, _)| r * width..(r + 1) * width).filter(|&i| x.data.get(i) == Some(&0.0)).collect()
}

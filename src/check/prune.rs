//! One step of pruning: the task loss through the gates, the nodes they keep, and the gradient of
//! every tau.

use std::collections::BTreeMap;

use super::golden::Case;
use super::{Comparison, GRADIENT, LOSS, Worst, relative_norm};
use crate::circuits::prune::{GateGradient, SearchSettings, step};
use crate::circuits::tasks::TokenPair;
use crate::circuits::{Layout, Nodes, SiteBlock, TaskBatch};
use crate::device::Device;
use crate::model::Weights;
use crate::{Error, Result};

pub(super) fn run(case: &Case, device: &Device) -> Result<Vec<Comparison>> {
    let model = case.model(device)?;
    let meta = case.meta()?;
    let number = |name: &str| meta[name].as_f64().ok_or_else(|| case.error(format!("lacks the number {name}")));
    let inputs = case.tensors("inputs.safetensors")?;
    let layout = Layout::new(&model.config);
    let tensor = |name: &str, width: usize| {
        inputs
            .get(name)
            .filter(|t| t.shape == [width])
            .map(|t| t.data.clone())
            .ok_or_else(|| case.error(format!("inputs.safetensors lacks {name} ({width})")))
    };
    let (mut tau, mut means) = (Vec::new(), BTreeMap::new());
    for block in layout.blocks() {
        let mask = mask_name(block);
        tau.extend(tensor(&format!("tau/{mask}"), block.width)?);
        means.insert(block.site, tensor(&format!("mean/{mask}"), block.width)?);
    }
    let nodes = Nodes::new(layout, &means, device)?;
    let task_batch = TaskBatch::new(&model, &pairs(case)?)?;
    let settings = SearchSettings {
        k_coef: number("k_coef")?,
        temperature: number("heaviside_temperature")?,
        ..SearchSettings::default()
    };
    let weights = Weights::constant(&model, &[]);
    let GateGradient { loss, gradient } = step((&model, &weights), &nodes, &task_batch, &tau, &settings)?;

    let mut losses = Worst::new("task loss, total", LOSS);
    let mut kept = Worst::new("kept nodes", 0.0);
    let mut gradients = Worst::new("gradients of tau", GRADIENT);
    let active = tau.iter().filter(|tau| **tau >= 0.0).count() as f64;
    let relative = |got: f64, want: f64| (got - want).abs() / want.abs();
    losses.see("task loss", Ok(relative(loss, number("task_loss")?)));
    losses.see("total", Ok(relative(loss + settings.k_coef * active, number("total")?)));
    kept.see("all masks", Ok((active - number("active_nodes")?).abs()));
    let expected = case.tensors("expected.safetensors")?;
    for block in nodes.layout.blocks() {
        let mask = mask_name(block);
        let got: Vec<f32> = gradient[block.range()].iter().map(|&g| g as f32).collect();
        gradients.see(
            &mask,
            match expected.get(&format!("grad/{mask}")) {
                Some(want) => relative_norm(&got, &want.data),
                None => Err("not in expected.safetensors".into()),
            },
        );
    }
    Ok(vec![losses.comparison(), kept.comparison(), gradients.comparison()])
}

/// The published name of a site's mask.
fn mask_name(block: &SiteBlock) -> String {
    let layer = block.layer.map(|layer| format!("{layer}.")).unwrap_or_default();
    format!("{layer}{}", block.kind.mask())
}

fn pairs(case: &Case) -> Result<Vec<TokenPair>> {
    let ids = |name: &str| case.ids(name);
    let ((shape, clean), (_, counterfactual)) = (ids("positive")?, ids("negative")?);
    let ((_, targets), (_, alternatives)) = (ids("target")?, ids("alternative")?);
    let length = shape.last().copied().filter(|&l| l > 0 && clean.len() == counterfactual.len());
    let length = length.ok_or_else(|| Error::shape("prune", format!("prompts {shape:?}")))?;
    let prompts = clean.chunks_exact(length).zip(counterfactual.chunks_exact(length));
    let mut pairs = Vec::new();
    for ((clean, counterfactual), (target, alternative)) in prompts.zip(targets.into_iter().zip(alternatives)) {
        pairs.push(TokenPair { clean: clean.to_vec(), counterfactual: counterfactual.to_vec(), target, alternative });
    }
    Ok(pairs)
}

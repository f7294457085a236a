//! The objective of bridges between two models: every term of every site, the models' logits, and
//! the gradients of the total, both with targets that learn, which the golden numbers have, and
//! with constant ones, as bridges are trained.

use super::golden::Case;
use super::{ACTIVATION, Comparison, GRADIENT, LOSS, Worst, relative_largest, relative_norm};
use crate::bridges::{Bridges, Objective};
use crate::device::{Device, Tensor};
use crate::model::{Batch, Kind, Model, NoHooks, Weights};
use crate::tape::Tape;
use crate::train::bridge::EncoderKind;
use crate::train::bridge_loss::{Coefficients, Terms};
use crate::{Error, Result};

pub(super) fn run(case: &Case, device: &Device) -> Result<Vec<Comparison>> {
    let (dense, sparse) = (case.model_in("dense/", device)?, case.model_in("sparse/", device)?);
    let tensors = case.tensors("bridges.safetensors")?;
    let afrac = case.meta()?["encoder_topk_fraction"].as_f64();
    let afrac = afrac.ok_or_else(|| case.error("lacks the number encoder_topk_fraction"))?;
    let bridges = Bridges::from_host(&dense.config, &sparse.config, EncoderKind::AbsTopK, afrac, &tensors, device)?;
    let (shape, tokens) = case.tokens()?;
    let sequences = shape.first().copied().unwrap_or(1);
    let dense_weights = Weights::constant(&dense, &[]);
    let coefficients = Coefficients::default();
    let objective = Objective {
        coefficients,
        // The golden numbers are those of targets that learn, other than the notes of the golden
        // run say.
        detach_target: false,
        ..Objective::new(&dense, &dense_weights, &sparse, &bridges)
    };
    let trained = |kind| kind != Kind::LogitsBias;
    let (terms, gradients) = objective.gradients(&tokens, sequences, 1.0, &trained)?;
    let terms = terms.read()?;
    // As bridges are trained: the same terms, and the same gradients of the bridges. The gradients
    // of the sparse model are those of targets that learn when the encoders' errors have the
    // coefficient 0.
    let (default_terms, default) =
        Objective { detach_target: true, ..objective }.gradients(&tokens, sequences, 1.0, &trained)?;
    let default_terms = default_terms.read()?;
    let without_encoders = coefficients.with("nmse_enc", 0.0)?;
    let (_, without_encoders) =
        Objective { coefficients: without_encoders, ..objective }.gradients(&tokens, sequences, 1.0, &trained)?;

    let losses = compare_terms(case, &terms, &default_terms, &coefficients)?;
    let mut logits = Worst::new("logits", ACTIVATION);
    let mut of_sparse = Worst::new("gradients, sparse model", GRADIENT);
    let mut of_bridges = Worst::new("gradients, bridges", GRADIENT);
    let mut constant_targets = Worst::new("gradients, constant targets", GRADIENT);
    let read = |tensor: Option<&Tensor>| tensor.ok_or("not computed")?.read().map_err(|e| e.to_string());
    for (name, want) in &case.tensors("expected.safetensors")? {
        let gradient = |tensor| relative_norm(&read(tensor)?, &want.data);
        let forward = |model| Ok::<_, Error>(relative_largest(&logits_of(model, &tokens, sequences)?, &want.data));
        if let Some(parameter) = name.strip_prefix("grad/sparse/") {
            let at = sparse.parameters.position(parameter);
            of_sparse.see(parameter, gradient(at.and_then(|at| gradients.sparse[at].as_ref())));
            let [got, want] =
                [&default, &without_encoders].map(|gradients| read(at.and_then(|at| gradients.sparse[at].as_ref())));
            constant_targets.see(parameter, got.and_then(|got| relative_norm(&got, &want?)));
        } else if let Some(map) = name.strip_prefix("grad/bridge/") {
            let at = bridges.list.iter().position(|known| known.name == map);
            of_bridges.see(map, gradient(at.map(|at| &gradients.bridges[at])));
            constant_targets.see(map, gradient(at.map(|at| &default.bridges[at])));
        } else if name == "dense_logits" {
            logits.see("dense", forward(&dense)?);
        } else if name == "sparse_logits" {
            logits.see("sparse", forward(&sparse)?);
        } else {
            let message = format!("expected.safetensors holds {name}, which is not understood");
            return Err::<_, Error>(case.error(message));
        }
    }
    of_sparse.note("(with the encoders' targets learning, as the golden run had them)".into());
    Ok([losses, logits, of_sparse, of_bridges, constant_targets].map(Worst::comparison).into())
}

fn logits_of(model: &Model, tokens: &[u32], sequences: usize) -> Result<Vec<f32>> {
    let batch = Batch::new(&model.device, &model.config, tokens, sequences)?;
    model.forward(&mut Tape::new(), &Weights::constant(model, &[]), &batch, &mut NoHooks)?.value().read()
}

/// The golden terms of every site, with targets that learn, and the total with constant ones.
fn compare_terms(
    case: &Case,
    terms: &Terms<f64>,
    default_terms: &Terms<f64>,
    coefficients: &Coefficients,
) -> Result<Worst> {
    let meta = case.meta()?;
    let number = |name: &str| meta[name].as_f64().ok_or_else(|| case.error(format!("lacks the number {name}")));
    let mut losses = Worst::new("terms of every site", LOSS);
    let relative = |got: f64, want: f64| (got - want).abs() / want.abs();
    losses.see("total", Ok(relative(terms.total(coefficients), number("total")?)));
    losses.see("total, constant targets", Ok(relative(default_terms.total(coefficients), number("total")?)));
    let cross_entropy = terms.get("cross_entropy").iter().sum();
    losses.see("cross_entropy", Ok(relative(cross_entropy, number("cross_entropy")?)));
    // Not all terms there are: those that the golden run knew.
    let per_site = meta["per_site"].as_object().ok_or_else(|| case.error("lacks the table per_site"))?;
    for (name, want) in per_site {
        let got = terms.get(name);
        let want: Vec<f64> = want.as_array().into_iter().flatten().filter_map(|v| v.as_f64()).collect();
        if want.is_empty() || want.len() != got.len() {
            return Err(case.error(format!("per_site.{name} has {} numbers for {} sites", want.len(), got.len())));
        }
        let pairs = got.iter().zip(want).enumerate();
        pairs.for_each(|(i, (&g, w))| losses.see(&format!("{name}/{i}"), Ok(relative(g, w))));
    }
    Ok(losses)
}

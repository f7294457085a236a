use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::{Prompt, TokenSource};
use crate::circuits::{Probe, Response, measured_means, stored_means};
use crate::files::{load_metadata, load_tensors};
use crate::formats::{OpenedCircuit, Pretrained};
use crate::model::{self, Action, Batch, Edit, Interventions, Model, NoHooks, Site, expect_model, ranked};
use crate::observer::Observer;
use crate::report::{Cell, Column, Report, Table};
use crate::text::source::Source;
use crate::{Error, Result};

/// Tokens of generated text that means are taken over, unless a file has them.
const MEAN_TOKENS: usize = 16_384;

/// A prompt, and the interventions to compare with.
#[derive(Clone, Copy, Debug)]
pub struct PredictRequest<'a> {
    /// The prompt whose next token is predicted.
    pub prompt: Prompt<'a>,
    /// The interventions.
    pub edits: &'a [Edit],
    /// The prompt whose activations patches are taken from.
    pub patch_from: Option<Prompt<'a>>,
    /// Mean activations, as recorded; generated text gives them if there is no file.
    pub means: Option<&'a Path>,
    /// A circuit, which is run alone, too, and taken out of the model. Both with the interventions.
    pub circuit: Option<&'a Path>,
}

/// The probabilities of the next token, by id, without and with interventions.
#[derive(Clone, Debug)]
pub struct Prediction {
    tokens: Vec<u32>,
    before: Vec<f64>,
    after: Option<Vec<f64>>,
    /// Of a circuit alone, and of the model without it.
    parts: Option<[Vec<f64>; 2]>,
}

/// Predicts the next token of a prompt, with and without interventions.
///
/// # Errors
/// Returns [`Error::Request`] for a prompt or means that no intervention uses,
/// [`Error::OtherModel`] for means of another model, and the errors of encoding, of
/// [`Interventions::new`] and of the forward pass.
pub fn predict(model: &Pretrained, request: &PredictRequest) -> Result<Prediction> {
    request.validate()?;
    let tokens = request.prompt.tokens(model)?;
    let before = model.model.next_token(&tokens, &mut NoHooks)?;
    let after = if request.edits.is_empty() {
        None
    } else {
        Some(model.model.next_token(&tokens, &mut request.interventions(model)?)?)
    };
    let parts = request.circuit.map(|file| request.parts(model, file, &tokens)).transpose()?;
    Ok(Prediction { tokens, before, after, parts })
}

impl PredictRequest<'_> {
    /// Checks that every option is used.
    ///
    /// # Errors
    /// Returns [`Error::Request`] naming the option that is not.
    pub fn validate(&self) -> Result<()> {
        let message = if self.patch_from.is_some() && !self.uses(Action::Patch) {
            "--patch-from changes nothing, since no --set takes from it: give one with =patch"
        } else if self.means.is_some() && self.circuit.is_none() && !self.uses(Action::Mean) {
            "--means changes nothing, since no --set takes a mean: give one with =mean"
        } else if self.circuit.is_some() && self.uses(Action::Patch) {
            "a circuit takes no =patch: edit it with numbers and means"
        } else {
            return Ok(());
        };
        Err(Error::Request(message.into()))
    }

    fn uses(&self, action: Action) -> bool {
        self.edits.iter().any(|edit| edit.action == action)
    }

    /// The prompt's next token by the circuit in `file`, and without that.
    fn parts(&self, model: &Pretrained, file: &Path, tokens: &[u32]) -> Result<[Vec<f64>; 2]> {
        let circuit = OpenedCircuit::open(file)?.circuit;
        let folder = file.parent().unwrap_or(Path::new(""));
        let means = match self.means {
            Some(path) => load_means(path, &model.model)?,
            None => match stored_means(folder, &circuit.model.hash)? {
                Some(means) => means,
                None => measured_means(
                    &model.model,
                    model.tokenizer()?,
                    &Source::default(),
                    MEAN_TOKENS,
                    &Observer::default(),
                )?,
            },
        };
        let Response { circuit, complement, .. } =
            Probe::new(&model.model, &circuit, means)?.run(tokens, self.edits)?;
        Ok([circuit, complement])
    }

    fn interventions(&self, model: &Pretrained) -> Result<Interventions> {
        let donor = self.patch_from.map(|prompt| prompt.tokens(model)).transpose()?;
        let means = self.means.map(|path| load_means(path, &model.model)).transpose()?;
        interventions(model, self.edits, donor.as_deref(), means)
    }
}

/// Edits ready to run, with what they need: patched values from a run of the prompt `patch_from`,
/// and `means` by site, which are taken over generated Python if they are not given.
///
/// # Errors
/// Returns the errors of [`Interventions::new`] and of the forward pass.
pub fn interventions(
    model: &Pretrained,
    edits: &[Edit],
    patch_from: Option<&[u32]>,
    means: Option<BTreeMap<Site, Vec<f32>>>,
) -> Result<Interventions> {
    let donor = match patch_from {
        None => BTreeMap::new(),
        Some(tokens) => {
            let model = &model.model;
            let cache = model.run_with_cache(tokens, &model.config.sites())?.cache;
            cache.sites().map(|site| Ok((site, cache.get(site)?.read()?))).collect::<Result<_>>()?
        }
    };
    let means = match means {
        _ if !edits.iter().any(|edit| edit.action == Action::Mean) => BTreeMap::new(),
        Some(means) => means,
        None => {
            tracing::info!("means are taken over {MEAN_TOKENS} tokens of generated Python; --means names others");
            let sequences = TokenSource::Text { data: &Source::default(), max_tokens: MEAN_TOKENS }.sequences(model)?;
            let model = &model.model;
            let batches = sequences.iter().map(|s| Batch::new(&model.device, &model.config, s, 1));
            model::means(model, batches, &model.config.sites(), true)?
        }
    };
    Interventions::new(&model.model.config, edits, means, donor)
}

/// The means in a file, after a check that they are of this model.
///
/// # Errors
/// Returns [`Error::OtherModel`] for those of another model, and the errors of reading.
pub fn load_means(path: &Path, model: &Model) -> Result<BTreeMap<Site, Vec<f32>>> {
    match load_metadata(path)?.get("model") {
        Some(hash) => expect_model(path.display().to_string(), "model", hash, &model.hash()?)?,
        None => tracing::warn!("{} does not say which model its means are of", path.display()),
    }
    load_tensors(path)?.into_iter().map(|(site, tensor)| Ok((site.parse()?, tensor.data))).collect()
}

impl Prediction {
    /// The `top` tokens of the model with and without interventions, of the circuit and without it,
    /// the most probable of the model first.
    fn shown(&self, top: usize) -> Vec<u32> {
        let mut ids = ranked(&self.before);
        let others = self.after.iter().chain(self.parts.iter().flatten());
        let after: Vec<u32> = others.flat_map(|after| ranked(after).into_iter().take(top)).collect();
        let more: Vec<u32> = ids.iter().skip(top).copied().filter(|id| after.contains(id)).collect();
        ids.truncate(top);
        ids.extend(more);
        ids
    }

    /// The `top` most probable tokens.
    ///
    /// # Errors
    /// Returns an error if a number has no JSON form.
    pub fn report(&self, top: usize, model: &Pretrained) -> Result<Report> {
        let after = |id: u32| self.after.as_ref().map(|after| after[id as usize]);
        let part = |at: usize, id: u32| self.parts.as_ref().map(|parts| parts[at][id as usize]);
        let shown = self.shown(top);
        let next = |&id: &u32| {
            let before = self.before[id as usize];
            let mut row = json!({ "token": id, "text": model.token_text(id), "before": before, "after": after(id) });
            if self.parts.is_some() {
                (row["circuit"], row["complement"]) = (part(0, id).into(), part(1, id).into());
            }
            row
        };
        let texts: Vec<_> = self.tokens.iter().map(|&id| model.token_text(id)).collect();
        let next: Vec<_> = shown.iter().map(next).collect();
        let json = json!({ "tokens": self.tokens, "texts": texts, "next": next });
        let numbers = if self.after.is_some() { vec!["before", "after"] } else { vec!["probability"] };
        let parts = if self.parts.is_some() { &["circuit", "complement"][..] } else { &[] };
        let numbers = numbers.iter().chain(parts);
        let columns = numbers.map(|name| Column::decimals(*name, 4)).chain([Column::text("next token")]);
        let mut table = Table::new("next", columns);
        for &id in &shown {
            let parts = [part(0, id), part(1, id)].into_iter().flatten();
            let numbers = std::iter::once(self.before[id as usize]).chain(after(id)).chain(parts).map(Cell::Number);
            table.push(numbers.chain([model.show(id).into()]));
        }
        let prompt: Vec<_> = self.tokens.iter().map(|&id| model.show(id)).collect();
        Ok(Report::of(&json)?.note(format!("{} tokens: {}", prompt.len(), prompt.join(" "))).table(table))
    }
}

//! Configurations as model folders keep them: the published `beeg_config.json`, Hugging Face's
//! `config.json` around the same fields, and those of other people's models.

use std::path::Path;

use serde_json::{Map, Value};

use super::families::{Foreign, MODEL_TYPES};
use crate::files::read_unmarked;
use crate::model::{ModelConfig, parse_config};
use crate::{Error, Result};

/// What `model_type` says in the `config.json` of such a model.
pub(crate) const MODEL_TYPE: &str = "circuitgpt";

/// Fields that Hugging Face's libraries write into every `config.json`, or repeat there under their
/// own names.
pub(super) const BOILERPLATE: &str = include_str!("boilerplate.txt");

/// Reads the model's configuration from `path`: fields flat, or one level down in the one object
/// that holds them. Fields next to that object are used where it lacks them. Hugging Face's fields
/// are ignored; other unknown fields are logged as warnings. Those of other people's models (`gpt2`,
/// `gpt_neo`, runs of sparse_pretrain) become ours.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::File`] if it is no JSON object, describes
/// another kind of model, one that cannot be computed here, or no possible one.
pub fn read_config(path: &Path) -> Result<ModelConfig> {
    read(path).map(|(config, _)| config)
}

/// As [`read_config`], with what is needed to find the tensors of other people's models.
pub(super) fn read(path: &Path) -> Result<(ModelConfig, Option<Foreign>)> {
    let bytes = read_unmarked(path)?;
    let invalid = |message: String| Error::file(path, message);
    let whole: Map<String, Value> =
        serde_json::from_slice(&bytes).map_err(|e| invalid(format!("not a JSON object: {e}")))?;
    if let Some(foreign) = Foreign::recognise(&whole) {
        let (config, unknown) = foreign.config().map_err(invalid)?;
        if !unknown.is_empty() {
            tracing::warn!("{}: fields not known and ignored: {}", path.display(), unknown.join(", "));
        }
        config.validate().map_err(|e| invalid(e.to_string()))?;
        return Ok((config, Some(foreign)));
    }
    if let Some(other) = whole.get("model_type").and_then(Value::as_str).filter(|other| *other != MODEL_TYPE) {
        let types = MODEL_TYPES.join("`, `");
        let message = format!("describes a model of type `{other}`; `{MODEL_TYPE}`, `{types}` models can be opened");
        return Err(invalid(message));
    }
    let mut fields = flatten(whole).map_err(invalid)?;
    fields.retain(|name, _| !BOILERPLATE.lines().any(|known| known == name));
    // Back to text, so that the checks and messages of one reader serve all.
    let flat = serde_json::to_vec(&fields).map_err(|e| invalid(e.to_string()))?;
    parse_config(path, &flat).map(|config| (config, None))
}

/// The fields of the model, all on one level.
fn flatten(mut whole: Map<String, Value>) -> Result<Map<String, Value>, String> {
    let describes = |fields: &Map<String, Value>| ["n_layer", "d_model"].map(|name| fields.contains_key(name));
    if describes(&whole) == [true, true] {
        return Ok(whole);
    }
    let nested = |(name, value): (&String, &Value)| {
        let inside = value.as_object().is_some_and(|fields| describes(fields) == [true, true]);
        inside.then(|| name.clone())
    };
    let holders: Vec<String> = whole.iter().filter_map(nested).collect();
    match holders.as_slice() {
        [] if describes(&whole) == [false, false] => {
            Err("has neither n_layer nor d_model: it is not the configuration of such a model".into())
        }
        [] => Ok(whole),
        [holder] => {
            let Some(Value::Object(mut fields)) = whole.remove(holder) else { return Ok(whole) };
            for (name, value) in whole {
                fields.entry(name).or_insert(value);
            }
            Ok(fields)
        }
        several => Err(format!("holds several configurations: {}", several.join(", "))),
    }
}

//! Models of other programs, whose configurations and tensors have names and layouts of their own:
//! one row each in [`FAMILIES`].
//!
//! A family's configuration becomes a [`ModelConfig`]; what the engine cannot compute is refused by
//! the name and value of the field. Its tensors become parameters as they are, but for their names
//! and the order of their numbers: nothing is folded into anything, so that every site shows what
//! the other program computes there.

mod fields;
mod gpt2;
mod gpt_neo;
mod sparse_pretrain;

use std::path::Path;

use serde_json::{Map, Value};

use super::assembled::{Assembled, Origin};
use crate::Result;
use crate::files::TensorSource;
use crate::model::{Kind, ModelConfig, Parameters};
use fields::Fields;
pub(super) use sparse_pretrain::LOCATIONS;

/// What is known of a kind of models.
struct Family {
    /// Whether a configuration is one of this kind.
    recognises: fn(&Map<String, Value>) -> bool,
    /// The configuration, from its fields.
    config: fn(&Fields) -> Result<ModelConfig, String>,
    /// Where the parameter of a published name and role is in the file, whose tensors have lost
    /// what wraps their names.
    origin: fn(&Fields, &str, Kind) -> Origin,
    /// Whether a tensor of that name is no weight.
    is_buffer: fn(&str) -> bool,
}

const FAMILIES: &[Family] = &[gpt2::FAMILY, gpt_neo::FAMILY, sparse_pretrain::FAMILY];

/// The values of `model_type` that have a family.
pub(super) const MODEL_TYPES: [&str; 2] = [gpt2::MODEL_TYPE, gpt_neo::MODEL_TYPE];

/// The configuration of a model of one of the families, by which its tensors are found.
pub(super) struct Foreign {
    family: &'static Family,
    fields: Fields,
}

impl Foreign {
    /// `whole` as the configuration of a model of one of the families, if it is one.
    pub(super) fn recognise(whole: &Map<String, Value>) -> Option<Self> {
        let family = FAMILIES.iter().find(|family| (family.recognises)(whole))?;
        Some(Self { family, fields: Fields::new(whole.clone()) })
    }

    /// What the configuration says, in our fields, and the names of fields that are not known. An
    /// error says which field is why the model cannot be opened.
    pub(super) fn config(&self) -> Result<(ModelConfig, Vec<String>), String> {
        let config = (self.family.config)(&self.fields)?;
        Ok((config, self.fields.unused()))
    }

    /// The model's parameters, from the tensors of its file at `path`.
    ///
    /// # Errors
    /// [`crate::Error::File`] naming a tensor that is missing or has an impossible shape.
    pub(super) fn assemble(
        &self,
        config: &ModelConfig,
        weights: Box<dyn TensorSource>,
        path: &Path,
    ) -> Result<Box<dyn TensorSource>> {
        let parameters = Parameters::shapes(config).into_iter().map(|(name, kind, shape)| {
            let origin = (self.family.origin)(&self.fields, &name, kind);
            (name, shape, origin)
        });
        Ok(Box::new(Assembled::new(weights, parameters, self.family.is_buffer, path)?))
    }
}

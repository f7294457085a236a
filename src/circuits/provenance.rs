//! How a circuit was found, as its file records it: the same model, settings, pairs and nodes
//! again.

use super::prune::SearchSettings;
use super::tasks::{self, Split, Task};
use super::{CalibrationKind, Circuit, Layout};
use crate::model::{Model, expect_model};
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result};

impl Circuit {
    /// Returns an error if it is not a part of the model with that
    /// [hash](crate::model::Model::hash).
    ///
    /// # Errors
    /// [`Error::OtherModel`] with both hashes; [`Error::Mismatch`] if the circuit does not record
    /// its model.
    pub fn check_model(&self, hash: &str) -> Result<()> {
        if self.model.hash.is_empty() {
            return Err(Error::Mismatch(format!(
                "the circuit of {} has no hash that says which model it is a part of: find it anew in this one",
                self.task.name
            )));
        }
        expect_model(format!("the circuit of {}", self.task.name), "model", &self.model.hash, hash)
    }

    /// Whether it is of another program, which does not record the model and the pairs.
    pub fn is_foreign(&self) -> bool {
        self.model.hash.is_empty()
    }

    /// As [`Circuit::check_model`]; a circuit of another program must at least fit the model's sizes.
    ///
    /// # Errors
    /// [`Error::OtherModel`] with both hashes; [`Error::Mismatch`] naming a node that the model does
    /// not have.
    pub fn check_part_of(&self, model: &Model) -> Result<()> {
        match self.is_foreign() {
            true => self.keep(&self.layout(&model.config)).map(drop),
            false => self.check_model(&model.hash()?),
        }
    }

    /// The settings that it was found with; the defaults for a circuit of another program.
    pub(crate) fn search_settings(&self) -> Result<SearchSettings> {
        if self.is_foreign() || self.settings.is_null() {
            return Ok(SearchSettings::default());
        }
        let mut settings = self.settings.clone();
        if let Some(settings) = settings.as_object_mut() {
            // Earlier versions knew no other.
            settings.entry("calibration").or_insert(CalibrationKind::Affine.to_string().into());
        }
        let settings: SearchSettings = serde_json::from_value(settings)
            .map_err(|e| Error::Mismatch(format!("the circuit's settings are not those of pruning: {e}")))?;
        settings.validate()?;
        Ok(settings)
    }

    /// The pairs that it was chosen by. `task` is its task, if that is not built in; prompts have
    /// at most `longest` tokens.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the task's pairs or the tokenizer are not those it was found with;
    /// those of [`tasks::batch`].
    pub fn pairs(&self, task: Option<Task>, tokenizer: &Tokenizer, longest: usize) -> Result<tasks::PairBatch> {
        let [train, _] = self.pairs_by_split(task, tokenizer, longest)?;
        Ok(train)
    }

    /// The pairs that it was chosen by, and those that it is evaluated on.
    pub(crate) fn pairs_by_split(
        &self,
        task: Option<Task>,
        tokenizer: &Tokenizer,
        longest: usize,
    ) -> Result<[tasks::PairBatch; 2]> {
        let (task, settings) = (self.resolve_task(task, tokenizer)?, self.search_settings()?);
        let longest = longest.min(settings.max_length);
        let batch =
            |split| tasks::batch(&task, split, settings.eval_seed(split), 0, settings.eval_pairs, tokenizer, longest);
        Ok([batch(Split::Train)?, batch(Split::Test)?])
    }

    /// Its task, with the variant of the answers that it was found with. `task` as for
    /// [`Circuit::pairs`].
    pub(crate) fn resolve_task(&self, task: Option<Task>, tokenizer: &Tokenizer) -> Result<Task> {
        let given = task.is_some();
        let built_in = || {
            let named = tasks::find(&self.task.name);
            named
                .map_err(|e| Error::Mismatch(format!("{e}; name the circuit's own task with --task")))?
                .with_context(self.task.context)
        };
        let task = task.map_or_else(built_in, Ok)?;
        // Files of earlier versions have no hash, and their version says nothing of a task that was
        // given.
        let (own, found) = (&self.task, &task);
        let same = if own.hash.is_empty() { given || own.version == found.version } else { own.hash == found.hash };
        if !same {
            return Err(Error::Mismatch(format!(
                "the circuit was found with other pairs of {}: version {} of the task, {}; this one is version {}, {}",
                own.name, own.version, own.hash, found.version, found.hash
            )));
        }
        if self.is_foreign() {
            return task.for_tokenizer(tokenizer);
        }
        task.in_variant(self.task.variant, tokenizer)
    }

    /// Which nodes of a model it keeps, by number.
    ///
    /// # Errors
    /// [`Error::Mismatch`] naming a node that the model does not have.
    pub fn keep(&self, layout: &Layout) -> Result<Vec<bool>> {
        let mut keep = vec![false; layout.len()];
        for entry in &self.nodes {
            let node = entry.node();
            let number = layout.number(node).ok_or_else(|| Error::Mismatch(format!("the model has no node {node}")))?;
            keep[number] = true;
        }
        Ok(keep)
    }
}

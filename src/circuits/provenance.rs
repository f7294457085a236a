//! What a circuit file says about how it was found, taken up again: the same nodes, the same pairs.

use super::prune::SearchSettings;
use super::search::{TEST_STREAM, TRAIN_STREAM};
use super::tasks::{self, Split, Task};
use super::{Circuit, Layout};
use crate::model::expect_model;
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result};

impl Circuit {
    /// Returns an error unless it is a part of the model of that [hash](crate::model::Model::hash).
    ///
    /// # Errors
    /// [`Error::OtherModel`] with both hashes; [`Error::Text`] if the circuit does not say which model it is a part of.
    pub fn check_model(&self, hash: &str) -> Result<()> {
        if self.model.hash.is_empty() {
            return Err(Error::Text(format!(
                "the circuit of {} has no hash that says which model it is a part of: find it anew in this one",
                self.task.name
            )));
        }
        expect_model(format!("the circuit of {}", self.task.name), "model", &self.model.hash, hash)
    }

    /// The settings that it was found with.
    ///
    /// # Errors
    /// [`Error::Text`] if they are not those of pruning.
    pub fn search_settings(&self) -> Result<SearchSettings> {
        let settings: SearchSettings = serde_json::from_value(self.settings.clone())
            .map_err(|e| Error::Text(format!("the circuit's settings are not those of pruning: {e}")))?;
        settings.validate()?;
        Ok(settings)
    }

    /// The pairs that it was chosen by. `task` is its task, where that is not one of the twenty; prompts have at most `longest` tokens.
    ///
    /// # Errors
    /// [`Error::Text`] where the built-in pairs or the tokenizer are not those it was found with, and those of [`tasks::batch`].
    pub fn pairs(&self, task: Option<Task>, tokenizer: &Tokenizer, longest: usize) -> Result<tasks::PairBatch> {
        let [train, _] = self.pairs_by_split(task, tokenizer, longest)?;
        Ok(train)
    }

    /// The pairs that it was chosen by, and those that it is judged by.
    ///
    /// # Errors
    /// Those of [`Circuit::pairs`].
    pub fn pairs_by_split(
        &self,
        task: Option<Task>,
        tokenizer: &Tokenizer,
        longest: usize,
    ) -> Result<[tasks::PairBatch; 2]> {
        let (task, settings) = (self.resolve_task(task, tokenizer)?, self.search_settings()?);
        let longest = longest.min(settings.max_length);
        let batch =
            |split, seed| tasks::batch(&task, split, settings.seed ^ seed, 0, settings.eval_pairs, tokenizer, longest);
        Ok([batch(Split::Train, TRAIN_STREAM)?, batch(Split::Test, TEST_STREAM)?])
    }

    /// Its task, with the answers that it was found with. `task` as for [`Circuit::pairs`].
    ///
    /// # Errors
    /// Those of [`Circuit::pairs`].
    pub fn resolve_task(&self, task: Option<Task>, tokenizer: &Tokenizer) -> Result<Task> {
        let built_in = task.is_none();
        let task = match task {
            Some(task) => task,
            None => tasks::find(&self.task.name)?,
        };
        if built_in && self.task.version != tasks::VERSION {
            return Err(Error::Text(format!(
                "the circuit was found with version {} of the tasks' pairs; this program has version {}",
                self.task.version,
                tasks::VERSION
            )));
        }
        let variant = tasks::choose_variant(&task, tokenizer)?;
        if variant != self.task.variant {
            return Err(Error::Text(format!(
                "the circuit was found with another tokenizer: it chose variant {} of the answers, this one {variant}",
                self.task.variant
            )));
        }
        task.for_tokenizer(tokenizer)
    }

    /// Which of a model's nodes it keeps, by number.
    ///
    /// # Errors
    /// [`Error::Text`] naming a node that the model does not have.
    pub fn keep(&self, layout: &Layout) -> Result<Vec<bool>> {
        let mut keep = vec![false; layout.len()];
        for entry in &self.nodes {
            let node = entry.node();
            let number = layout.number(node).ok_or_else(|| Error::Text(format!("the model has no node {node}")))?;
            keep[number] = true;
        }
        Ok(keep)
    }
}

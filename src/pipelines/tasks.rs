//! How well a model does a task.

use serde::Serialize;

use crate::circuits::tasks::{Split, Task};
use crate::circuits::{SplitScore, score};
use crate::formats::Pretrained;
use crate::report::{Cell, Column, Table};
use crate::{Error, Result};

/// A model's scores in a task, or why there are none.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TaskEvaluation {
    /// The task's name.
    pub task: String,
    /// Why it could not be evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The answers of the first train pair.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<TokenName>,
    /// On train pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train: Option<SplitScore>,
    /// On held-out pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<SplitScore>,
}

/// A token.
#[derive(Clone, Debug, Serialize)]
pub struct TokenName {
    /// Its number.
    pub token: u32,
    /// Its text.
    pub text: String,
}

/// Evaluates a model in a task, on `pairs` pairs of each split.
///
/// # Errors
/// Returns [`Error::NonFiniteSite`], which is about the model; other errors are in the result.
pub fn evaluate_task(model: &Pretrained, task: &Task, pairs: usize, seed: u64) -> Result<TaskEvaluation> {
    let scored = || {
        let tokenizer = model.tokenizer()?;
        let task = task.clone().for_tokenizer(tokenizer)?;
        let on = |split| score(&model.model, tokenizer, &task, split, seed, pairs);
        Ok((task.question(), on(Split::Train)?, on(Split::Test)?))
    };
    let name = task.title.clone();
    match scored() {
        Ok((name, train, test)) => {
            let answers =
                train.answers.iter().map(|&token| TokenName { token, text: model.token_text(token) }).collect();
            Ok(TaskEvaluation { task: name, answers, train: Some(train), test: Some(test), error: None })
        }
        Err(error @ Error::NonFiniteSite { .. }) => Err(error),
        Err(error) => Ok(TaskEvaluation { task: name, error: Some(error.to_string()), ..TaskEvaluation::default() }),
    }
}

impl TaskEvaluation {
    /// The table of evaluations, without rows.
    pub fn table() -> Table {
        let split = |name: &str| {
            let accuracy = Column::percent(format!("{name}_accuracy")).title("accuracy");
            [Column::decimals(format!("{name}_loss"), 4).title(format!("{name} loss")), accuracy]
        };
        let names = [Column::text("task").width(28), Column::text("answers").width(22)];
        Table::new("tasks", names.into_iter().chain(split("train")).chain(split("test")))
    }

    /// Its row of [`TaskEvaluation::table`], with lines for what there is to say about the pairs.
    pub fn text(&self, table: &Table) -> String {
        let answers: Vec<_> = self.answers.iter().map(|token| crate::text::notation::token(&token.text)).collect();
        let scores: Vec<_> = [&self.train, &self.test].into_iter().flatten().collect();
        let mut row: Vec<Cell> = vec![self.task.as_str().into(), answers.join(" | ").into()];
        row.extend(scores.iter().flat_map(|score| [score.loss.into(), score.accuracy.into()]));
        let line = self.error.as_ref().map_or_else(|| table.line(&row), |error| format!("{:28} {error}", self.task));
        let notes = scores.iter().filter_map(|score| score.notes.as_ref()).map(|note| format!("\n{:28} {note}", ""));
        notes.fold(line, |text, note| text + &note)
    }
}

//! The command lines of `gossamer` and `train`: arguments and printing. The binaries and the Python
//! package start them.

pub mod gossamer;
pub mod train;

use std::path::PathBuf;

use crate::circuits::tasks::{ContextLength, Task};
use crate::text::source::{DEFAULT_FIELD, Source};

/// The folder with this program, where jobs of a sweep find the others.
pub fn programs() -> PathBuf {
    let folder = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.to_path_buf()));
    folder.unwrap_or_default()
}

/// What comes before the questions of tasks.
#[derive(clap::Args)]
pub(crate) struct ContextArgs {
    /// What comes before a task's questions: up to two lines, or up to 600 bytes of generated code
    /// more, about 200 tokens, with other quotes, brackets and names [default: short]
    #[arg(long, value_enum)]
    pub(crate) context: Option<ContextLength>,
}

impl ContextArgs {
    /// The task with that context, if one was given.
    pub(crate) fn of(&self, task: Task) -> crate::Result<Task> {
        match self.context {
            Some(context) => task.with_context(context),
            None => Ok(task),
        }
    }
}

/// Where the text is in data.
#[derive(clap::Args)]
pub(crate) struct FieldArgs {
    /// The field or column that has the text, in .jsonl, .csv, .tsv and .parquet files
    #[arg(long, value_name = "NAME", default_value = DEFAULT_FIELD)]
    pub(crate) text_field: String,
}

impl FieldArgs {
    /// What `data` names.
    pub(crate) fn source(&self, data: &[PathBuf], offline: bool) -> Source {
        Source::new(data).with_field(&self.text_field).offline(offline)
    }
}

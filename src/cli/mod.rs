//! The command lines of `gossamer` and `train`: arguments and printing. The binaries and the Python
//! package start them.

pub mod gossamer;
pub mod train;

use std::path::PathBuf;

use crate::text::source::{DEFAULT_FIELD, Source};

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

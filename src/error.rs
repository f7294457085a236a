//! The error type of the library. Each failure that a user can cause has a variant with what and
//! where.

use std::path::{Path, PathBuf};

/// A result with the error of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every way the library can fail.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operation received tensors whose shapes do not fit together.
    #[error("{op}: {message}")]
    Shape {
        /// The operation, named as its file in `ops/`.
        op: &'static str,
        /// What did not fit, with the shapes.
        message: String,
    },
    /// A device does not exist, has no driver, or failed.
    #[error("device: {0}")]
    Device(String),
    /// A tensor is larger than the device can hold.
    #[error("{tensor} needs {needed} bytes, but {limit}")]
    Limit {
        /// The tensor's name.
        tensor: String,
        /// How many bytes it needs.
        needed: u64,
        /// The limit, in words, with its number.
        limit: String,
    },
    /// Reading or writing a file failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's own error.
        source: std::io::Error,
    },
    /// The contents of a file are invalid.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A setting has an unknown name or an invalid value.
    #[error("setting `{key}`: {message}")]
    Config {
        /// The setting's name.
        key: String,
        /// What is wrong with it, and what would be right.
        message: String,
    },
    /// A tensor or parameter is missing.
    #[error("{holder} lacks {name}")]
    MissingTensor {
        /// Who should have it, such as `the model` or `the weights`.
        holder: String,
        /// Its name, with its shape where that is known.
        name: String,
    },
    /// A parameter is stored as a sparse matrix where a dense one is needed.
    #[error("{name} is stored as a sparse matrix, and needed dense: load the model for training")]
    SparseParameter {
        /// The parameter's name.
        name: String,
    },
    /// Two things do not fit together: a configuration and weights, two models, a model and
    /// bridges.
    #[error("{0}")]
    Mismatch(String),
    /// A tokenizer is damaged or unsuitable, or cannot encode or decode a text or token.
    #[error("{0}")]
    Tokenizer(String),
    /// There is no data, too little of it, or it changed while it was read.
    #[error("{0}")]
    Data(String),
    /// A name is not known.
    #[error("no {kind} is called {name}; there are: {known}")]
    Unknown {
        /// The kind of thing named, such as `task` or `column`.
        kind: &'static str,
        /// The name given.
        name: String,
        /// The known names, with commas.
        known: String,
    },
    /// A model of the Hub cannot be fetched or pushed.
    #[error("{0}")]
    Hub(String),
    /// A request contradicts itself, or is incomplete.
    #[error("{0}")]
    Request(String),
    /// A picture cannot be drawn or encoded.
    #[error("{0}")]
    Drawing(String),
    /// A model does not do a task well enough to search for a circuit.
    #[error("its loss is {loss:.3} at best, above the target {target}: there is no circuit to be found")]
    UnreachableTarget {
        /// The task loss of all nodes that may be used, calibrated.
        loss: f64,
        /// The loss to reach.
        target: f64,
    },
    /// No variant of a task has answers of one token each for the model's tokenizer.
    #[error("task {task}: does not suit this tokenizer:{reasons}")]
    UnsuitableTask {
        /// The task.
        task: String,
        /// Why, a line for each variant.
        reasons: String,
    },
    /// A number in training is not finite.
    #[error("step {step}: {tensor} is not finite ({value}); the last good checkpoint is kept")]
    NonFinite {
        /// The optimizer step, counted from 0.
        step: u64,
        /// The first tensor that went wrong: `loss`, or a parameter whose gradient it was.
        tensor: String,
        /// The offending value.
        value: f32,
    },
    /// A number in a model's forward pass is not finite.
    #[error("{}", not_finite(site, *value, *at, weights.as_deref()))]
    NonFiniteSite {
        /// The first site in the order of the forward pass with such a number, such as
        /// `0.attn.act_in`; `logits`; the parameter that holds it; or what was computed from finite
        /// logits.
        site: String,
        /// The first such number there.
        value: f32,
        /// Where it is in a site `(B, T, width)`: sequence, position and channel, from 0. Nothing
        /// for what is no site.
        at: Option<[usize; 3]>,
        /// Which of the model's weights are not finite, in words; empty if all are.
        weights: Option<String>,
    },
    /// Something was made with another model than the one given.
    #[error(
        "{what} was made with another {model}: its hash is {expected}, that of the one given is {found}. Give the model that it was \
         made with, or make it anew with this one"
    )]
    OtherModel {
        /// The file, or what is in it.
        what: String,
        /// `model`, or which of several: `sparse model`.
        model: String,
        /// The hash of the model that it was made with.
        expected: String,
        /// The hash of the model given.
        found: String,
    },
    /// The newest checkpoint of a run is damaged, and an earlier one is not.
    #[error("{fault}; the newest whole checkpoint is {}, and `train --resume {}` continues from it", whole.display(), whole.display())]
    Checkpoint {
        /// What is wrong with the newest.
        fault: Box<Error>,
        /// The newest one that is whole.
        whole: PathBuf,
    },
    /// The computation was asked to stop before its end.
    #[error("stopped before it was done")]
    Stopped,
    /// A job of a sweep was asked to stop, but not the sweep.
    #[error("{job}: it was asked to stop; the same command continues with it")]
    JobStopped {
        /// The job's name.
        job: String,
    },
    /// Processes that train together do not agree, or cannot communicate.
    #[error("{0}")]
    Communication(String),
    /// There is not enough memory.
    #[error("{0}")]
    Memory(String),
}

/// Where the number is, why, and what helps to find the cause.
fn not_finite(site: &str, value: f32, at: Option<[usize; 3]>, weights: Option<&str>) -> String {
    let logits = site == "logits" || site.ends_with("'s logits");
    let (verb, channel) = if logits { ("are", "token") } else { ("is", "channel") };
    let position = at.map_or(String::new(), |[sequence, position, index]| {
        format!(" at position {position}, {channel} {index} of sequence {sequence}")
    });
    let cause = match weights {
        Some(weights) => format!("{weights}."),
        None => "All weights are finite: the numbers became too large on the way.".into(),
    };
    format!(
        "{site} {verb} not finite: {value}{position}. {cause} `gossamer inspect` lists weights that are not finite, and \
         `gossamer record` records every site"
    )
}

/// An error and its causes in one line. Leaves out a cause that an outer error quotes.
pub fn explain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    causes.fold(String::new(), |text, cause| match (text.is_empty(), text.ends_with(&cause)) {
        (true, _) => cause,
        (false, true) => text,
        (false, false) => format!("{text}: {cause}"),
    })
}

impl Error {
    /// A shape error of operation `op`.
    pub fn shape(op: &'static str, message: impl Into<String>) -> Self {
        Self::Shape { op, message: message.into() }
    }

    /// An input or output error at `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_path_buf(), source }
    }

    /// An error of the contents of the file at `path`.
    pub fn file(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::File { path: path.as_ref().to_path_buf(), message: message.into() }
    }

    /// The same error, with the name of the model it is about, such as `dense`.
    #[must_use]
    pub fn in_model(self, name: &str) -> Self {
        match self {
            Self::NonFiniteSite { site, value, at, weights } => {
                Self::NonFiniteSite { site: format!("the {name} model's {site}"), value, at, weights }
            }
            other => other,
        }
    }

    /// An error of setting `key`.
    pub fn config(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Config { key: key.into(), message: message.into() }
    }

    /// The same error about the file or folder at `path`.
    pub(crate) fn at(self, path: &Path) -> Self {
        match self {
            Self::Io { source, .. } => Self::io(path, source),
            Self::File { message, .. } => Self::file(path, message),
            other => other,
        }
    }

    /// The same error as one of the contents of the file at `path`, with `prefix` before its
    /// message, unless it names a file, a device or a setting.
    #[must_use]
    pub(crate) fn in_file(self, path: &Path, prefix: &str) -> Self {
        match self {
            Self::MissingTensor { .. }
            | Self::SparseParameter { .. }
            | Self::Mismatch(_)
            | Self::Tokenizer(_)
            | Self::Data(_) => Self::file(path, format!("{prefix}{self}")),
            other => other,
        }
    }

    /// The same error, with a path below `from` replaced by one below `to`.
    pub(crate) fn moved(self, from: &Path, to: &Path) -> Self {
        match &self {
            Self::Io { path, .. } | Self::File { path, .. } => match path.strip_prefix(from) {
                Ok(below) => {
                    let path = to.join(below);
                    self.at(&path)
                }
                Err(_) => self,
            },
            _ => self,
        }
    }
}

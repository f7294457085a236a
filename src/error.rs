//! The library's one error type: every failure a user can cause has a variant that says what and where.

use std::path::{Path, PathBuf};

/// What the library returns wherever something can go wrong.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every way the library can fail.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operation was given tensors whose shapes do not fit together.
    #[error("{op}: {message}")]
    Shape {
        /// The operation, named as its file in `ops/`.
        op: &'static str,
        /// What did not fit, with the shapes.
        message: String,
    },
    /// No such device, no driver, or the device failed.
    #[error("device: {0}")]
    Device(String),
    /// A tensor larger than what the device can hold.
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
    /// A file's contents are not what they should be.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A setting with an unknown name or an impossible value.
    #[error("setting `{key}`: {message}")]
    Config {
        /// The setting's name.
        key: String,
        /// What is wrong with it, and what would be right.
        message: String,
    },
    /// A tensor or parameter that should be there.
    #[error("{holder} lacks {name}")]
    MissingTensor {
        /// Who should have it, such as `the model` or `the weights`.
        holder: String,
        /// Its name, with its shape where that is known.
        name: String,
    },
    /// A parameter held as a sparse matrix where only a dense one serves.
    #[error("{name} is held compressed, and needed dense: load the model for training")]
    HeldCompressed {
        /// The parameter's name.
        name: String,
    },
    /// Two things that do not fit together: a configuration and weights, two models, a model and bridges.
    #[error("{0}")]
    Mismatch(String),
    /// A tokenizer that is damaged or unsuitable, or text or tokens that it cannot encode or decode.
    #[error("{0}")]
    Tokenizer(String),
    /// No data, too little of it, or data that changed while it was read.
    #[error("{0}")]
    Data(String),
    /// A name that is not among those known.
    #[error("no {kind} is called {name}; there are: {known}")]
    Unknown {
        /// What was named, such as `task` or `column`.
        kind: &'static str,
        /// The name given.
        name: String,
        /// The names known, with commas.
        known: String,
    },
    /// A model of the Hub that cannot be fetched.
    #[error("{0}")]
    Hub(String),
    /// A request that contradicts itself, or leaves out what it needs.
    #[error("{0}")]
    Request(String),
    /// A picture cannot be drawn or encoded.
    #[error("{0}")]
    Drawing(String),
    /// Superseded by the variants above.
    #[error("{0}")]
    Text(String),
    /// A model does not do a task well enough for a circuit to be looked for.
    #[error("its loss is {loss:.3} at best, above the target {target}: there is no circuit to be found")]
    OutOfReach {
        /// The task loss of all nodes that may be used, calibrated.
        loss: f64,
        /// The loss to reach.
        target: f64,
    },
    /// No variant of a task has answers of one token each for the model's tokenizer.
    #[error("task {task}: not a question for this tokenizer:{reasons}")]
    NoQuestion {
        /// The task.
        task: String,
        /// Why, a line for each variant.
        reasons: String,
    },
    /// Training met a number that is not finite.
    #[error("step {step}: {tensor} is not finite ({value}); the last good checkpoint is kept")]
    NonFinite {
        /// The optimizer step, counted from 0.
        step: u64,
        /// The first tensor that went wrong: `loss`, or a parameter whose gradient it was.
        tensor: String,
        /// The offending value.
        value: f32,
    },
    /// A model's run met a number that is not finite.
    #[error("{}", not_finite(site, *value, *at, weights.as_deref()))]
    NonFiniteSite {
        /// The first site in the order of the forward pass with such a number, such as `0.attn.act_in`; `logits`; the
        /// parameter that holds it; or what was computed from finite logits.
        site: String,
        /// The first such number there.
        value: f32,
        /// Where it is in a site `(B, T, width)`: sequence, position and channel, from 0. Nothing for what is no site.
        at: Option<[usize; 3]>,
        /// Which of the model's weights are not finite, in words; nothing if all are.
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
    #[error("{fault}; the newest whole checkpoint is {}, and `train --resume {}` goes on from it", whole.display(), whole.display())]
    Checkpoint {
        /// What is wrong with the newest.
        fault: Box<Error>,
        /// The newest one that is whole.
        whole: PathBuf,
    },
    /// The work was asked to stop before it was done.
    #[error("stopped before it was done")]
    Stopped,
    /// Processes that train together do not agree, or cannot talk.
    #[error("{0}")]
    Ranks(String),
    /// Too little memory for what was asked.
    #[error("{0}")]
    Memory(String),
}

/// Where a number that is not finite was first met, why, and what helps to find out more.
fn not_finite(site: &str, value: f32, at: Option<[usize; 3]>, weights: Option<&str>) -> String {
    let logits = site == "logits" || site.ends_with("'s logits");
    let (verb, channel) = if logits { ("are", "token") } else { ("is", "channel") };
    let place = at.map_or(String::new(), |[sequence, position, index]| {
        format!(" at position {position}, {channel} {index} of sequence {sequence}")
    });
    let cause = match weights {
        Some(weights) => format!("{weights}."),
        None => "All weights are finite: the numbers became too large on the way.".into(),
    };
    format!(
        "{site} {verb} not finite: {value}{place}. {cause} `gossamer inspect` lists weights that are not finite, and \
         `gossamer record` writes down every site"
    )
}

/// An error and its causes in one line, none said twice: an outer error may already quote the inner one.
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

    /// An input/output error at `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_path_buf(), source }
    }

    /// A complaint about the contents of the file at `path`.
    pub fn file(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::File { path: path.as_ref().to_path_buf(), message: message.into() }
    }

    /// The same error, which also says in which of several models it was met, such as `dense`.
    #[must_use]
    pub fn in_model(self, name: &str) -> Self {
        match self {
            Self::NonFiniteSite { site, value, at, weights } => {
                Self::NonFiniteSite { site: format!("the {name} model's {site}"), value, at, weights }
            }
            other => other,
        }
    }

    /// A complaint about setting `key`.
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

    /// The same error as one of the contents of the file at `path`, with `prefix` before its message, unless it names a
    /// file, a device or a setting itself.
    #[must_use]
    pub(crate) fn in_file(self, path: &Path, prefix: &str) -> Self {
        match self {
            Self::MissingTensor { .. }
            | Self::HeldCompressed { .. }
            | Self::Mismatch(_)
            | Self::Tokenizer(_)
            | Self::Data(_)
            | Self::Text(_) => Self::file(path, format!("{prefix}{self}")),
            other => other,
        }
    }

    /// The same error, about what lay below `from` and lies below `to`.
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

//! Weight-sparse transformers: a compute engine, a trainer, and the tools to look inside.
//!
//! The layers point one way, from the bottom up:
//!
//! * [`device`]: where numbers live and run. Knows nothing of models.
//! * [`ops`]: what can be computed; one file per operation, with its WGSL kernel in `shaders/` and its native twin.
//! * [`tape`]: which operations ran, for the way back.
//! * [`observer`]: how a long computation reports and learns that it is to stop.
//! * [`settings`]: what each setting may be, and how `KEY=VALUE` is read.
//! * [`model`], [`sparsity`], [`text`]: the transformer, the weight-sparsity rules, and what it reads.
//! * [`formats`]: models as other programs and the Hugging Face Hub keep them.
//! * [`train`]: batches, optimizer, the loop, checkpoints.
//! * [`circuits`]: the tasks that ask a model one question each, and what in it answers.
//! * [`report`]: a result as text, CSV, JSON or a chart.
//! * [`sweep`]: one command with many settings, and a table of what came out.
//! * [`terminal`]: what the binaries share: messages, signals, progress.
//! * [`bridges`]: what joins a sparse model to a dense one, so that each can go on where the other stands.
#![warn(missing_docs)]
// They panic where a line cannot be written.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod bench;
pub mod bridges;
pub mod chart;
pub mod check;
pub mod circuits;
pub mod device;
pub mod error;
pub mod files;
pub mod formats;
pub mod model;
pub mod observer;
pub mod ops;
pub mod pipelines;
pub mod report;
pub mod settings;
pub mod sparsity;
pub mod sweep;
pub mod tape;
pub mod terminal;
pub mod text;
pub mod train;

pub use error::{Error, Result};

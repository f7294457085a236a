//! Circuits: which few parts of a model answer one question about code (method: sections 3 and 4).
//!
//! * [`tasks`] asks the questions, [`TaskBatch`] puts them to a model;
//! * [`Nodes`] gates a model's channels, [`prune`] learns which gates to keep, [`polish`] exchanges some, [`find`] goes all the way to the smallest circuit,
//!   [`tune`] tries other settings, [`parallel`] searches for several circuits at once;
//! * [`Probe`] puts any prompt to the model, to a circuit alone and to the rest, with edits of nodes;
//! * [`statistics`] and [`binarise`] say more about a circuit's nodes, in files beside it;
//! * [`checkpoint`] looks at a circuit's nodes, and at all tasks, in other checkpoints of the model; [`channel_tokens()`] at its vocabulary;
//! * [`Circuit`] is the file; [`show()`], [`svg()`], [`dot()`] and [`json()`] write it for people and programs,
//!   [`picture`] says where everything goes in a drawing, [`paint`] in which colours, [`wording`] in which words.

pub mod binarise;
mod check;
pub mod checkpoint;
pub mod collect;
mod describe;
mod file;
mod gates;
mod graph;
pub mod local_search;
mod lock;
mod means;
mod nodes;
pub mod parallel;
mod probe;
mod provenance;
pub mod prune;
mod render;
pub mod search;
pub mod statistics;
mod task_batch;
pub mod tasks;
pub mod tune;
mod vocabulary;

pub use binarise::Binary;
pub(crate) use check::has_matrix;
pub use file::{
    ActivationRange, BiasEntry, Circuit, Counts, EdgeEntry, LayerCounts, LossSet, Losses, ModelRef, NodeEntry, TaskRef,
    TokenRef, TokenWeight, TokenWeights, VERSION,
};
pub use gates::{Gates, Nodes};
pub use graph::{Edge, EdgeAblation, Graph, graph};
pub use lock::lock;
pub use means::{MEANS, mean_activations, stored_means, text_means};
pub use nodes::{Layout, Node, NodeKind, SiteBlock};
pub use probe::{Probe, Response};
pub use render::{Reader, ResidualPath, Writer, color, dot, json, labels, layout, residual_paths, show, svg};
pub use statistics::Statistics;
pub use task_batch::{Calibration, LogitDiffs, TaskBatch};
pub use vocabulary::channel_tokens;

//! Circuits: which few parts of a model answer one question about code (method: sections 3 and 4).
//!
//! * [`tasks`] asks the questions, [`Questions`] puts them to a model;
//! * [`Nodes`] gates a model's channels, [`prune`] learns which gates to keep, [`polish`] exchanges some, [`find`] goes all the way to the smallest circuit,
//!   [`tune`] tries other settings, [`parallel`] searches for several circuits at once;
//! * [`Probe`] puts any prompt to the model, to a circuit alone and to the rest, with edits of nodes;
//! * [`statistics`] and [`binarise`] say more about a circuit's nodes, in files beside it;
//! * [`checkpoint`] looks at a circuit's nodes, and at all tasks, in other checkpoints of the model; [`channel_tokens()`] at its vocabulary;
//! * [`Circuit`] is the file; [`show()`], [`svg()`], [`dot()`] and [`json()`] write it for people and programs,
//!   [`picture`] says where everything goes in a drawing, [`paint`] in which colours, [`wording`] in which words.

mod again;
pub mod binarise;
mod check;
pub mod checkpoint;
pub mod collect;
mod describe;
mod file;
pub mod find;
mod gates;
mod graph;
mod lock;
mod means;
mod nodes;
pub mod parallel;
pub mod polish;
mod probe;
pub mod prune;
mod questions;
pub mod statistics;
pub mod tasks;
pub mod tune;
mod views;
mod vocabulary;

pub use binarise::Binary;
pub(crate) use check::joined;
pub use file::{
    BiasEntry, Circuit, Counts, EdgeEntry, LayerCounts, LossSet, Losses, ModelRef, NodeEntry, Range, TaskRef, TokenRef,
    TokenWeight, TokenWeights, VERSION,
};
pub use gates::{Gates, Nodes};
pub use graph::{Cut, Edge, Graph, graph};
pub use lock::lock;
pub use means::{MEANS, mean_activations, stored_means, text_means};
pub use nodes::{Layout, Node, NodeKind, Slot};
pub use probe::{Probe, Response};
pub use questions::{Answers, Calibration, Questions};
pub use statistics::Statistics;
pub use views::{Reader, ResidualPath, Writer, dot, json, paint, picture, residual_paths, show, svg, wording};
pub use vocabulary::channel_tokens;

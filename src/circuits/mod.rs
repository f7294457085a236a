//! Circuits: the few parts of a model that do one task on code (method: sections 3 and 4).
//!
//! * [`tasks`] makes pairs of prompts, [`TaskBatch`] runs them through a model;
//! * [`Nodes`] gates a model's channels, [`prune`] learns which gates to keep, [`local_search`]
//!   swaps some, [`search`] goes all the way to the smallest circuit, [`tune`] tries other
//!   settings, [`parallel`] runs several searches at once, [`pipeline`] searches for the circuits
//!   of many tasks and writes them;
//! * [`evaluate`] measures how far a circuit can be trusted, with any [`Ablation`] and with controls,
//!   [`curve`] measures circuits of every size;
//! * [`Probe`] runs any prompt through the model, the circuit alone and its complement, with edits
//!   of nodes;
//! * [`statistics`] and [`binarise`] say more about a circuit's nodes, in files next to it;
//! * [`checkpoint`] evaluates a circuit's nodes, and all tasks, in other checkpoints;
//!   [`channel_tokens()`] reads the vocabulary;
//! * [`Circuit`] is the file; [`show()`], [`svg()`], [`dot()`] and [`json()`] render it for people
//!   and programs, with [`layout`], [`color`] and [`labels`].

mod ablation;
mod annotations;
pub mod attribution;
pub mod binarise;
mod calibration;
mod check;
pub mod checkpoint;
pub mod collect;
pub mod curve;
mod describe;
mod edge_pruning;
mod edit;
pub mod evaluate;
mod file;
mod finished;
mod gates;
mod graph;
pub mod local_search;
mod lock;
mod means;
mod nodes;
pub mod parallel;
pub mod pipeline;
mod probe;
mod provenance;
pub mod prune;
mod render;
mod score;
pub mod search;
pub mod statistics;
mod subject;
mod task_batch;
pub mod tasks;
pub mod tune;
mod vocabulary;

pub use ablation::Ablation;
pub use annotations::Annotations;
pub use binarise::Binary;
pub use calibration::{Calibration, CalibrationKind, LogitDiffs};
pub(crate) use check::has_matrix;
pub use edge_pruning::prune_edges;
pub use file::{
    ActivationRange, BiasEntry, Circuit, Counts, EdgeEntry, LayerCounts, LossSet, Losses, ModelRef, NodeEntry,
    PairDifference, TaskRef, TokenRef, TokenWeight, TokenWeights, VERSION, circuit_files,
};
pub use gates::{Gates, Nodes};
pub use graph::{Edge, EdgeAblation, Graph, PrunedEdge, graph};
pub use lock::lock;
pub use means::{MEANS, mean_activations, measured_means, stored_means, text_means};
pub use nodes::{Layout, Node, NodeKind, SiteBlock};
pub use probe::{Probe, Response};
pub use render::{
    CircuitFormat, FORMATS, ResidualPath, ResidualUser, color, dot, edges_csv, json, labels, layout, nodes_csv,
    residual_paths, show, svg,
};
pub use score::{SplitScore, score};
pub use statistics::Statistics;
pub use task_batch::{TaskBatch, Weighted};
pub use vocabulary::channel_tokens;

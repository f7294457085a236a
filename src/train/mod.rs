//! Training: the step, the loop around it, and what a run reads and writes.

pub mod bridge;
pub mod checkpoint;
pub mod communicator;
pub mod config;
pub mod data;
pub mod estimate;
pub mod lock;
pub mod memory;
pub mod metrics;
pub(crate) mod plan;
pub mod presets;
pub mod run;
pub mod settings;
pub mod step;
mod tensorboard;
mod train_loop;

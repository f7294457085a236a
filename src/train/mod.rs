//! Training: the step, the loop around it, and what a run reads and writes.

pub mod bridge;
pub mod bridge_loss;
pub mod checkpoint;
pub mod communicator;
pub mod config;
pub mod data;
pub mod estimate;
pub mod init;
pub mod lock;
pub mod memory;
pub mod metrics;
pub mod norms;
pub mod presets;
pub mod request;
pub mod run;
pub mod settings;
pub mod step;
mod tensorboard;
mod train_loop;

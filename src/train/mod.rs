//! Training.

pub mod config;
pub mod memory;
pub mod metrics;
pub mod step;
mod tensorboard;

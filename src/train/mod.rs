//! Training.

pub mod memory;
pub mod metrics;
mod tensorboard;

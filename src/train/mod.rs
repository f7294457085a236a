//! Training.

pub mod metrics;

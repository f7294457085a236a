//! Training: both devices follow the same curve, repeatably, at exactly the densities that were
//! asked for.

#[path = "../common/mod.rs"]
mod common;

mod communicator;
mod curves;
mod estimate;
mod failures;
mod launches;
mod norms;
mod schedule;
mod stopping;
mod survivors;
mod tiny;

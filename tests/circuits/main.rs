//! Circuits and the tasks they answer.

#[path = "../common/mod.rs"]
mod common;
#[path = "../model/oracle.rs"]
#[allow(dead_code)]
mod oracle;
#[path = "../model/variants.rs"]
#[allow(dead_code)]
mod variants;

mod ablated;
mod binarise;
mod checkpoint;
mod file;
mod finite;
mod probe;
mod prune;
mod statistics;
mod tasks;

//! Circuits and the tasks they answer.

#[path = "../common/mod.rs"]
mod common;
#[path = "../model/oracle.rs"]
#[allow(dead_code)]
mod oracle;
#[path = "../model/variants.rs"]
#[allow(dead_code)]
mod variants;

mod attribution;
mod binarise;
mod checkpoint;
mod evaluate;
mod file;
mod finite;
mod groups;
mod probe;
mod prune;
mod recomputed;
mod statistics;
mod tasks;

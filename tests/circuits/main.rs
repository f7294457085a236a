//! Circuits and the tasks they answer.

#[path = "../common/mod.rs"]
mod common;

mod binarise;
mod checkpoint;
mod file;
mod prune;
mod statistics;
mod tasks;

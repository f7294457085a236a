//! Circuits and the tasks they answer.

#[path = "../common/mod.rs"]
mod common;

mod file;
mod prune;
mod tasks;

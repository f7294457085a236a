//! Circuits and the tasks they answer.

mod file;
mod tasks;

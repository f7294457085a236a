//! The model: its configuration, parameters and sites, and its gradients on both devices.

#[path = "../common/mod.rs"]
mod common;

mod config;
mod edits;
mod finite;
mod forward;
mod generation;
mod gradients;
mod held_compressed;
mod interventions;
mod oracle;
mod parameters;
mod partial;
mod pattern;
mod run;
mod sampling;
mod sites;
mod variants;

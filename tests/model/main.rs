//! The model: its configuration, parameters and sites, and its gradients on both devices.

#[path = "../common/mod.rs"]
mod common;

mod config;
mod gradients;
mod parameters;
mod sites;
mod variants;

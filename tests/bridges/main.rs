//! Bridges: the objective and its gradients against float64 loops.

#[path = "../common/mod.rs"]
mod common;
#[path = "../model/oracle.rs"]
#[allow(dead_code)]
mod oracle;
#[path = "../model/variants.rs"]
#[allow(dead_code)]
mod variants;

mod estimate;
mod evaluate;
mod maps;
mod objective;
mod pair;
mod recipe;
mod steer;
mod training;

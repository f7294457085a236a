//! A circuit for people and for other programs: as text, as a picture, as a Graphviz graph, as JSON with its residual paths.

pub mod color;
mod dot;
mod json;
pub mod labels;
pub mod layout;
mod residual;
mod show;
mod svg;

pub use dot::dot;
pub use json::json;
pub use residual::{Reader, ResidualPath, Writer, residual_paths};
pub use show::show;
pub use svg::svg;

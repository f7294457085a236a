//! A circuit for people and for other programs: as text, as a picture, as a Graphviz graph, as JSON with its residual paths.

mod dot;
mod json;
pub mod paint;
pub mod picture;
mod residual;
mod show;
mod svg;
pub mod wording;

pub use dot::dot;
pub use json::json;
pub use residual::{Reader, ResidualPath, Writer, residual_paths};
pub use show::show;
pub use svg::svg;

//! A circuit rendered for people and for other programs, in one of [`FORMATS`].

pub mod color;
mod csv;
mod dot;
mod json;
pub mod labels;
pub mod layout;
mod residual;
mod show;
mod svg;
mod threshold;

use std::path::Path;

pub use csv::{edges_csv, nodes_csv};
pub use dot::dot;
pub use json::json;
pub use residual::{ResidualPath, ResidualUser, residual_paths};
pub use show::show;
pub use svg::svg;

use super::Circuit;
use crate::files::write_atomic;
use crate::{Error, Result};

/// Reads a circuit from a file's contents, or returns what is wrong with them.
pub(crate) type ReadCircuit = fn(&[u8]) -> Result<Circuit, String>;

/// A format of circuits.
pub struct CircuitFormat {
    /// Its name in commands and menus, and the extension of its files.
    pub name: &'static str,
    /// What it is, for help texts.
    pub about: &'static str,
    /// Renders a circuit.
    pub write: fn(&Circuit) -> String,
    /// Reads a circuit from a file's contents; `None` for formats that only render it, and may
    /// render a part.
    pub read: Option<ReadCircuit>,
}

/// All formats: those that `gossamer circuit export` and the explorer's menu offer.
pub const FORMATS: &[CircuitFormat] = &[
    CircuitFormat { name: "svg", about: "a picture", write: svg, read: None },
    CircuitFormat { name: "dot", about: "a Graphviz graph", write: dot, read: None },
    CircuitFormat {
        name: "json",
        about: "the circuit file, with its residual paths spelled out",
        write: json,
        read: Some(Circuit::from_json),
    },
    CircuitFormat { name: "nodes.csv", about: "a table of the nodes", write: nodes_csv, read: None },
    CircuitFormat { name: "edges.csv", about: "a table of the edges", write: edges_csv, read: None },
    CircuitFormat { name: "txt", about: "text, node by node and edge by edge", write: show, read: None },
];

impl CircuitFormat {
    /// The format of that name.
    ///
    /// # Errors
    /// Returns [`Error::Unknown`] with all names if there is none.
    pub fn named(name: &str) -> Result<&'static Self> {
        let known = || FORMATS.iter().map(|format| format.name).collect::<Vec<_>>().join(", ");
        let found = FORMATS.iter().find(|format| format.name == name);
        found.ok_or_else(|| Error::Unknown { kind: "circuit format", name: name.into(), known: known() })
    }

    /// Writes a circuit whole or not at all.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if it cannot be written.
    pub fn save(&self, circuit: &Circuit, path: &Path) -> Result<()> {
        let text = (self.write)(circuit);
        write_atomic(path, |out| out.write_all(text.as_bytes()).map_err(|e| Error::io(path, e)))
    }
}

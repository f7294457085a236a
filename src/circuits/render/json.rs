//! A circuit as JSON for other programs: the circuit file in order, with the residual paths spelled out.

use serde::Serialize;

use super::residual::{ResidualPath, residual_paths};
use crate::circuits::file::Circuit;

/// The circuit file's contents, its lists in order ([`Circuit::normalised`]), with one list more, `residual_paths`, each
/// `{"channel": 17, "from": "embedding", "to": "1.mlp.act_in[17]"}`. It is itself a circuit file.
pub fn json(circuit: &Circuit) -> String {
    #[derive(Serialize)]
    struct Explicit {
        #[serde(flatten)]
        circuit: Circuit,
        residual_paths: Vec<ResidualPath>,
    }
    let explicit = Explicit { circuit: circuit.clone().normalised(), residual_paths: residual_paths(circuit) };
    // Of these types nothing can fail: all map keys are strings, and numbers that are not finite become null.
    let mut text = serde_json::to_string_pretty(&explicit).unwrap_or_default();
    text.push('\n');
    text
}

//! Pages of HTML that work without a network: circuits, drawn, with what is known of every node, and
//! the report of a run. Scripts draw them from the data that these modules put into the page.

mod circuits;
mod run;

use serde::Serialize;

use super::export::ExportRequest;
use crate::circuits::color::GROUPS;
use crate::{Error, Result};
use circuits::PageCircuit;

pub use run::{RunReport, run_report};

/// Everything that a page shows.
#[derive(Clone, Copy, Serialize)]
struct Page<'a> {
    version: &'static str,
    title: &'a str,
    /// Red, green and blue of the groups.
    groups: [[u8; 3]; GROUPS.len()],
    circuits: &'a [PageCircuit<'a>],
    /// What is shown of a run, before its circuits.
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<&'a run::PageRun>,
}

impl<'a> Page<'a> {
    fn new(title: &'a str) -> Self {
        Self { version: env!("CARGO_PKG_VERSION"), title, groups: GROUPS, circuits: &[], run: None }
    }
}

/// The circuits as one page. With the model, it has snippets of text, prompts and attention.
///
/// # Errors
/// As [`super::CircuitExport::save`].
pub fn circuit_page(requests: &[ExportRequest]) -> Result<String> {
    let names: Vec<String> = requests.iter().map(|request| request.circuit.circuit.task.question()).collect();
    circuits::with_circuits(&Page::new(&names.join(", ")), requests)
}

/// The page around the data.
fn html(page: &Page) -> Result<String> {
    let data = serde_json::to_string(page).map_err(|e| Error::Data(e.to_string()))?;
    let parts = [
        ("TITLE", &page.title.replace('&', "&amp;").replace('<', "&lt;")[..]),
        ("STYLE", include_str!("page.css")),
        // No text in it can end the script.
        ("DATA", &data.replace('<', "\\u003c")),
        ("SCRIPT", include_str!("page.js")),
        ("RUN", if page.run.is_some() { include_str!("run.js") } else { "" }),
    ];
    let mut out = String::new();
    let mut rest = include_str!("page.html");
    for (name, part) in parts {
        let Some((before, after)) = rest.split_once(&format!("{{{name}}}")) else { continue };
        out += before;
        out += part;
        rest = after;
    }
    Ok(out + rest)
}

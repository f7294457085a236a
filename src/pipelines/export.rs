//! Circuits for other programs, in formats that say more with the model than the circuit file alone.

use std::collections::BTreeMap;
use std::path::Path;

use super::{CircuitRequest, circuit_page};
use crate::circuits::collect::node_activations;
use crate::circuits::statistics::NodeStatistics;
use crate::circuits::{Node, NodeEntry, Statistics};
use crate::files::write_atomic;
use crate::formats::Pretrained;
use crate::formats::attribution_graph::{GraphPrompt, GraphToken, attribution_graph};
use crate::formats::viz::{Measurements, save_payload};
use crate::model::{NoHooks, expect_model, ranked};
use crate::observer::Observer;
use crate::{Error, Result};

/// A circuit to write, with the model if there is one.
pub struct ExportRequest<'a> {
    /// The circuit, its file, its task, and the text for mean activations.
    pub circuit: CircuitRequest<'a>,
    /// The model that it is a part of.
    pub model: Option<&'a Pretrained>,
    /// The change of the task loss, in nats, from which on nodes and edges are shown at first, in
    /// formats that show a part.
    pub threshold: Option<f64>,
    /// Whether statistics of activations are measured where there is no file of them.
    pub measure: bool,
    /// Hears how far it is.
    pub observer: &'a Observer<'a>,
    /// Hears what is left out.
    pub note: &'a dyn Fn(String),
}

/// A format that is written with the help of the model.
pub struct CircuitExport {
    /// Its name in commands.
    pub name: &'static str,
    /// What it is, for help texts.
    pub about: &'static str,
    /// Whether it is better with the model that the circuit names, if that is there.
    pub opens_model: bool,
    /// Whether it can show a part of a circuit ([`ExportRequest::threshold`]).
    pub shows_part: bool,
    save: SaveCircuits,
}

enum SaveCircuits {
    /// One circuit.
    One(fn(&ExportRequest, &Path) -> Result<()>),
    /// Several in one file.
    All(fn(&[ExportRequest], &Path) -> Result<()>),
}

/// All of them. Formats that need nothing but the circuit are in [`crate::circuits::FORMATS`].
pub const CIRCUIT_EXPORTS: &[CircuitExport] = &[
    CircuitExport {
        name: "html",
        about: "a page of one or more circuits that works without a network",
        opens_model: true,
        shows_part: true,
        save: SaveCircuits::All(html),
    },
    CircuitExport {
        name: "viz",
        about: "a viz_data.pt for the published visualiser",
        opens_model: false,
        shows_part: false,
        save: SaveCircuits::One(viz),
    },
    CircuitExport {
        name: "neuronpedia",
        about: "an attribution graph for Neuronpedia and circuit-tracer (needs --model)",
        opens_model: false,
        shows_part: false,
        save: SaveCircuits::One(neuronpedia),
    },
];

impl CircuitExport {
    /// Writes the circuits to the file at `path`, whole or not at all.
    ///
    /// # Errors
    /// [`Error::OtherModel`] for another model, [`Error::Request`] without the model where the
    /// format needs it, or for more or fewer circuits than it takes; those of the pairs and of the
    /// forward pass, and [`Error::Io`].
    pub fn save(&self, requests: &[ExportRequest], path: &Path) -> Result<()> {
        match (&self.save, requests) {
            (SaveCircuits::All(save), [_, ..]) => save(requests, path),
            (SaveCircuits::One(save), [request]) => save(request, path),
            _ => Err(one_circuit(self.name)),
        }
    }
}

/// That a format takes one circuit at a time.
pub fn one_circuit(format: &str) -> Error {
    Error::Request(format!("{format} holds one circuit: name one file, or --format html"))
}

fn html(requests: &[ExportRequest], path: &Path) -> Result<()> {
    let text = circuit_page(requests)?;
    write_atomic(path, |out| out.write_all(text.as_bytes()).map_err(|e| Error::io(path, e)))
}

fn viz(request: &ExportRequest, path: &Path) -> Result<()> {
    let circuit = request.circuit.circuit;
    let statistics = request.statistics()?;
    let mut known = Measurements { statistics: &statistics, ..Measurements::default() };
    if let Some(payload) = request.circuit.payload {
        known.sublayers = payload.sublayers.iter().cloned().collect();
    }
    match request.model {
        None => (request.note)("without --model there are no prompts and no losses of sublayers in it".into()),
        Some(model) => {
            request.circuit.check(model)?;
            known.config = Some(&model.model.config);
            known.prompts = request.circuit.prompts(model)?;
            known.activations = request.activations(model, &known.prompts.concat())?;
            if known.sublayers.is_empty() {
                match request.circuit.sublayers(model, request.observer) {
                    Ok(sublayers) => known.sublayers = sublayers,
                    Err(Error::Stopped) => return Err(Error::Stopped),
                    Err(error) => (request.note)(format!("there are no losses of sublayers in it: {error}")),
                }
            }
        }
    }
    save_payload(path, circuit, &known)
}

fn neuronpedia(request: &ExportRequest, path: &Path) -> Result<()> {
    let missing = || Error::Request("an attribution graph is of a prompt in the model: name it with --model".into());
    let model = request.model.ok_or_else(missing)?;
    let circuit = request.circuit.check(model)?;
    let [clean, _] = request.circuit.prompts(model)?;
    let none = || Error::Request("the circuit has no prompt to make a graph of: name its task with --task".into());
    let ids = clean.into_iter().next().filter(|ids| !ids.is_empty()).ok_or_else(none)?;
    let activations = request.activations(model, std::slice::from_ref(&ids))?;
    let one = |(node, mut rows): (Node, Vec<Vec<f32>>)| (node, rows.pop().unwrap_or_default());
    let token = |id: u32| GraphToken { id, text: model.token_text(id) };
    let probabilities = model.model.next_token(&ids, &mut NoHooks)?;
    let probability = |id: u32| probabilities.get(id as usize).copied().unwrap_or_default();
    let predicted: Vec<u32> = match circuit.task.target.text.is_empty() {
        // A published circuit does not say what the answers are.
        true => ranked(&probabilities).into_iter().take(2).collect(),
        false => vec![circuit.task.target.id, circuit.task.alternative.id],
    };
    let prompt = GraphPrompt {
        text: ids.iter().map(|&id| model.token_text(id)).collect(),
        activations: activations.into_iter().map(one).collect(),
        predicted: predicted.into_iter().map(|id| (token(id), probability(id))).collect(),
        tokens: ids.into_iter().map(token).collect(),
    };
    let text = attribution_graph(circuit, &model.model.config, &prompt);
    write_atomic(path, |out| out.write_all(text.as_bytes()).map_err(|e| Error::io(path, e)))
}

impl ExportRequest<'_> {
    /// The statistics of the nodes: those of the file next to the circuit's, or of a published file.
    pub(super) fn statistics(&self) -> Result<Vec<NodeStatistics>> {
        let file = self.circuit.file.with_extension("statistics.json");
        if file.exists() && self.circuit.file != file {
            let statistics = Statistics::load(&file)?;
            // Circuits of other programs do not say which model they are of.
            if !self.circuit.circuit.is_foreign() {
                expect_model(file.display().to_string(), "model", &statistics.model, &self.circuit.circuit.model.hash)?;
            }
            return Ok(statistics.nodes);
        }
        Ok(match self.circuit.payload {
            Some(payload) => payload.statistics.nodes.clone(),
            None => {
                (self.note)(format!("there are no snippets of text in it: there is no {}", file.display()));
                Vec::new()
            }
        })
    }

    /// The activations of the circuit's nodes in the whole model, by node and prompt.
    pub(super) fn activations(
        &self,
        model: &Pretrained,
        prompts: &[Vec<u32>],
    ) -> Result<BTreeMap<Node, Vec<Vec<f32>>>> {
        let nodes: Vec<Node> = self.circuit.circuit.nodes.iter().map(NodeEntry::node).collect();
        let values = node_activations(&model.model, &nodes, prompts, self.observer)?;
        Ok(nodes.into_iter().zip(values).collect())
    }
}

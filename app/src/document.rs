//! Opening files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use gossamer::circuits::{Circuit, Counts, LossSet, Losses, ModelRef, Statistics, TokenRef, circuit_files};
use gossamer::formats::{ModelFiles, OpenedCircuit, Payload};
use gossamer::model::{WeightReport, expect_model, inspect};
use gossamer::text::notation;
use gossamer::text::tokenizer::Tokenizer;

use crate::timeline;

/// An open circuit with its statistics and tokenizer.
pub struct Document {
    /// Its file; `None` for the example.
    pub path: Option<PathBuf>,
    /// The circuit; empty for a model without circuits.
    pub circuit: Circuit,
    /// Statistics of its nodes' activations, or why they are not known.
    pub statistics: Result<Statistics, String>,
    /// The model's tokenizer, if it was found.
    pub tokenizer: Option<Tokenizer>,
    /// The circuit files of the folder, this one included.
    pub siblings: Vec<PathBuf>,
    /// What the file holds.
    pub contents: Contents,
}

/// What a document's file holds besides the circuit.
pub enum Contents {
    /// A circuit file.
    Circuit,
    /// A published circuit. Its statistics are those of the document.
    Published(Box<Payload>),
    /// A model without circuits; the document's circuit is empty.
    Model(Box<WeightReport>),
}

impl Document {
    /// The built-in circuit of a small model, which closes a string with the quote that opened it.
    ///
    /// # Errors
    /// Returns an error if the built-in file is damaged.
    pub fn example() -> Result<Self> {
        let bytes = include_bytes!("../assets/single_double_quote.json");
        let circuit = Circuit::from_json(bytes).map_err(anyhow::Error::msg)?;
        let statistics = Err("the example comes without the model that it is a part of".into());
        Ok(Self { path: None, circuit, statistics, tokenizer: None, siblings: Vec::new(), contents: Contents::Circuit })
    }

    /// Opens a circuit file, a published circuit, the first circuit of a run or folder, or a model
    /// that has none.
    ///
    /// # Errors
    /// Returns an error if nothing at `path` can be opened.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            let all = circuits(path).with_context(|| format!("{} cannot be read", path.display()))?;
            let Some(first) = all.into_iter().next() else {
                return Self::model(path)
                    .with_context(|| format!("{} has no circuits, and is no model", path.display()));
            };
            return Self::open(&first);
        }
        let extension = path.extension().and_then(|extension| extension.to_str());
        if extension == Some("safetensors") {
            return Self::model(path);
        }
        match OpenedCircuit::open(path) {
            Ok(OpenedCircuit { payload: Some(payload), .. }) => Ok(Self::published(path, *payload)),
            Ok(OpenedCircuit { circuit, payload: None }) => Ok(Self::circuit(path, circuit)),
            // A model's weights have the suffix of published circuits.
            Err(error) if extension == Some("pt") => Self::model(path).map_err(|_| error.into()),
            Err(error) => Err(error).context(
                "circuits (.json), published circuits (viz_data.pt), runs and folders of models can be opened",
            ),
        }
    }

    fn circuit(path: &Path, circuit: Circuit) -> Self {
        let statistics = path.with_extension("statistics.json");
        let statistics = if statistics.exists() {
            load_statistics(&statistics, &circuit.model.hash).map_err(|e| e.to_string())
        } else {
            Err(format!("measure them with `gossamer circuit stats {}`", path.display()))
        };
        let tokenizer = tokenizer(path, &circuit);
        let siblings = path.parent().and_then(|folder| circuits(folder).ok()).unwrap_or_default();
        Self { path: Some(path.into()), circuit, statistics, tokenizer, siblings, contents: Contents::Circuit }
    }

    fn published(path: &Path, mut payload: Payload) -> Self {
        let circuit = payload.circuit.clone();
        let nodes = std::mem::take(&mut payload.statistics.nodes);
        let statistics = Ok(Statistics { nodes, ..payload.statistics.clone() });
        let file = payload.model.as_ref().map(|model| model.join("tokenizer.json"));
        let tokenizer = file.and_then(|file| Tokenizer::load(file).ok()).or_else(|| tokenizer(path, &circuit));
        let contents = Contents::Published(Box::new(payload));
        Self { path: Some(path.into()), circuit, statistics, tokenizer, siblings: Vec::new(), contents }
    }

    /// A model without circuits, as an empty circuit of its shape.
    fn model(path: &Path) -> Result<Self> {
        let files = ModelFiles::open(path)?;
        let report = inspect(&files.config, files.weights.as_ref(), 0)?;
        let mut circuit = Self::example()?.circuit;
        circuit.model = ModelRef::new(path.display().to_string(), "", &files.config);
        let name = std::path::absolute(path).unwrap_or_else(|_| path.into());
        circuit.task.name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
        circuit.task.description = "a model without circuits".into();
        // Nothing of the example remains.
        let nothing = TokenRef { id: 0, text: String::new() };
        (circuit.task.target, circuit.task.alternative) = (nothing.clone(), nothing);
        (circuit.task.clean, circuit.task.counterfactual) = Default::default();
        circuit.losses = Losses { train: LossSet::default(), test: LossSet::default() };
        circuit.settings = serde_json::Value::Null;
        (circuit.nodes, circuit.edges, circuit.biases) = Default::default();
        (circuit.embeddings, circuit.unembeddings) = Default::default();
        circuit.counts = Counts::of(circuit.model.n_layer, &[], &[], &[]);
        let tokenizer = files.tokenizer.as_ref().and_then(|file| Tokenizer::load(file).ok());
        let (statistics, contents) = (Err("no circuit was found yet".into()), Contents::Model(Box::new(report)));
        Ok(Self { path: Some(path.into()), circuit, statistics, tokenizer, siblings: Vec::new(), contents })
    }

    /// The path of its model, if it exists.
    pub fn model_path(&self) -> Option<PathBuf> {
        let exists = |path: &PathBuf| path.exists();
        let run = || timeline::run_of(self.path.as_deref(), Path::new(&self.circuit.model.path));
        match &self.contents {
            Contents::Circuit => run().or(Some(PathBuf::from(&self.circuit.model.path)).filter(exists)),
            Contents::Published(payload) => payload.model.clone().filter(exists).or_else(run),
            // A named checkpoint, not the latest of its run.
            Contents::Model(_) => self.path.clone().filter(exists).or_else(run),
        }
    }

    /// The name that is shown.
    pub fn name(&self) -> String {
        if !matches!(self.contents, Contents::Circuit) {
            return self.circuit.task.name.clone();
        }
        let stem = self.path.as_ref().and_then(|path| path.file_stem()).map(|stem| stem.to_string_lossy().into_owned());
        stem.unwrap_or_else(|| format!("{} (example)", self.circuit.task.name))
    }

    /// The first part of the names of exported files; a task's name cannot lead to another folder.
    pub fn file_stem(&self) -> String {
        let name = Path::new(&self.circuit.task.name).file_name();
        name.map_or_else(|| "circuit".into(), |name| name.to_string_lossy().into_owned())
    }

    /// A token as text.
    pub fn token(&self, id: u32) -> String {
        self.tokenizer.as_ref().map_or_else(|| notation::unknown(id), |tokenizer| tokenizer.token_text(id))
    }
}

/// The circuit files of a run or folder, by name, each followed by those that share no node with it
/// (`NAME.2.json` and so on).
fn circuits(folder: &Path) -> gossamer::Result<Vec<PathBuf>> {
    let inner = folder.join("circuits");
    let folder = if inner.is_dir() { &inner } else { folder };
    Ok(circuit_files(folder)?.into_iter().filter(|path| Circuit::load(path).is_ok()).collect())
}

/// Returns an error if the statistics are of another model.
fn load_statistics(path: &Path, hash: &str) -> gossamer::Result<Statistics> {
    let statistics = Statistics::load(path)?;
    expect_model(path.display().to_string(), "model", &statistics.model, hash)?;
    Ok(statistics)
}

/// The tokenizer of the run around the circuit, or else of the model that it names.
fn tokenizer(path: &Path, circuit: &Circuit) -> Option<Tokenizer> {
    let above = path.ancestors().skip(1).take(3).map(Path::to_path_buf);
    let mut folders = above.chain([PathBuf::from(&circuit.model.path)]);
    folders.find_map(|folder| Tokenizer::load(folder.join("tokenizer.json")).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circuits_that_share_no_node_are_listed_after_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let circuit = Document::example().unwrap().circuit;
        let names = ["a.json", "a.2.json", "a.10.json", "b.json"];
        for name in names.iter().rev().chain(&["a.export.json", "a.2.export.json"]) {
            circuit.save(folder.path().join(name)).unwrap();
        }
        let document = Document::open(folder.path()).unwrap();
        let listed: Vec<_> = document.siblings.iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(listed, names);
        assert_eq!(document.name(), "a");
    }

    #[test]
    fn statistics_of_another_model_are_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("quotes.json");
        let circuit = Document::example().unwrap().circuit;
        circuit.save(&file).unwrap();
        let mut statistics =
            Statistics { version: 1, model: "sha256:other".into(), task: "quotes".into(), seed: 0, nodes: Vec::new() };
        statistics.save(file.with_extension("statistics.json")).unwrap();
        let error = Document::open(&file).unwrap().statistics.unwrap_err();
        assert!(error.contains("sha256:other") && error.contains(&circuit.model.hash), "{error}");
        statistics.model = circuit.model.hash;
        statistics.save(file.with_extension("statistics.json")).unwrap();
        assert_eq!(Document::open(&file).unwrap().statistics, Ok(statistics));
    }
}

//! Opening files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use gossamer::circuits::{Circuit, Counts, LossSet, Losses, ModelRef, Statistics, TokenRef};
use gossamer::formats::{ModelFiles, Payload};
use gossamer::model::{expect_model, inspect};
use gossamer::text::notation;
use gossamer::text::tokenizer::Tokenizer;

use crate::about::About;
use crate::timeline;

/// An open circuit, with what lies beside it.
pub struct Document {
    /// Its file; nothing for the example that comes with the program.
    pub path: Option<PathBuf>,
    /// The circuit.
    pub circuit: Circuit,
    /// What its nodes' activations are like in text, or why that is not known.
    pub statistics: Result<Statistics, String>,
    /// The model's tokenizer, where it was found.
    pub tokenizer: Option<Tokenizer>,
    /// All circuit files of the same folder, this one among them.
    pub siblings: Vec<PathBuf>,
    /// What kind of document it is.
    pub about: About,
}

impl Document {
    /// The circuit that comes with the program: a small model closes a string with the quote it was opened with.
    ///
    /// # Errors
    /// None that a user could cause: the file is part of the program.
    pub fn example() -> Result<Self> {
        let bytes = include_bytes!("../assets/single_double_quote.json");
        let circuit = Circuit::from_json(bytes).map_err(anyhow::Error::msg)?;
        let statistics = Err("the example comes without the model that it is a part of".into());
        Ok(Self { path: None, circuit, statistics, tokenizer: None, siblings: Vec::new(), about: About::Circuit })
    }

    /// Opens a circuit file, a published circuit, the first circuit of a run or folder, or a model that has none.
    ///
    /// # Errors
    /// What is wrong, and what to do about it.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            let all = circuits(path).with_context(|| format!("{} cannot be read", path.display()))?;
            let Some(first) = all.into_iter().next() else {
                return Self::model(path)
                    .with_context(|| format!("{} has no circuits, and is no model", path.display()));
            };
            return Self::open(&first);
        }
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("pt") => match Payload::open(path) {
                Ok(payload) => Ok(Self::published(path, payload)),
                // The weights of a model are such archives, too.
                Err(error) => Self::model(path).map_err(|_| error.into()),
            },
            Some("safetensors") => Self::model(path),
            _ => Self::circuit(path),
        }
    }

    fn circuit(path: &Path) -> Result<Self> {
        let circuit = Circuit::load(path)
            .context("circuits (.json), published circuits (viz_data.pt), runs and folders of models can be opened")?;
        let statistics = path.with_extension("statistics.json");
        let statistics = match statistics.exists() {
            true => measured(&statistics, &circuit.model.hash).map_err(|e| e.to_string()),
            false => Err(format!("measure them with `gossamer circuit stats {}`", path.display())),
        };
        let tokenizer = tokenizer(path, &circuit);
        let siblings = path.parent().and_then(|folder| circuits(folder).ok()).unwrap_or_default();
        Ok(Self { path: Some(path.into()), circuit, statistics, tokenizer, siblings, about: About::Circuit })
    }

    fn published(path: &Path, mut payload: Payload) -> Self {
        let circuit = payload.circuit.clone();
        let nodes = std::mem::take(&mut payload.statistics.nodes);
        let statistics = Ok(Statistics { nodes, ..payload.statistics.clone() });
        let beside = payload.model.as_ref().map(|model| model.join("tokenizer.json"));
        let tokenizer = beside.and_then(|file| Tokenizer::load(file).ok()).or_else(|| tokenizer(path, &circuit));
        let about = About::Published(Box::new(payload));
        Self { path: Some(path.into()), circuit, statistics, tokenizer, siblings: Vec::new(), about }
    }

    /// A model without circuits: an empty one, of its shape.
    fn model(path: &Path) -> Result<Self> {
        let files = ModelFiles::open(path)?;
        let report = inspect(&files.config, files.weights.as_ref(), 0)?;
        let mut circuit = Self::example()?.circuit;
        circuit.model = ModelRef::new(path.display().to_string(), "", &files.config);
        let name = std::path::absolute(path).unwrap_or_else(|_| path.into());
        circuit.task.name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
        circuit.task.description = "a model without circuits".into();
        // The rest of the example is about the example's model.
        let nothing = TokenRef { id: 0, text: String::new() };
        (circuit.task.target, circuit.task.alternative) = (nothing.clone(), nothing);
        (circuit.task.clean, circuit.task.counterfactual) = Default::default();
        circuit.losses = Losses { train: LossSet::default(), test: LossSet::default() };
        circuit.settings = serde_json::Value::Null;
        (circuit.nodes, circuit.edges, circuit.biases) = Default::default();
        (circuit.embeddings, circuit.unembeddings) = Default::default();
        circuit.counts = Counts::of(circuit.model.n_layer, &[], &[], &[]);
        let tokenizer = files.tokenizer.as_ref().and_then(|file| Tokenizer::load(file).ok());
        let (statistics, about) = (Err("no circuit was found yet".into()), About::Model(Box::new(report)));
        Ok(Self { path: Some(path.into()), circuit, statistics, tokenizer, siblings: Vec::new(), about })
    }

    /// Where its model is, if it is there.
    pub fn model_path(&self) -> Option<PathBuf> {
        let there = |path: &PathBuf| path.exists();
        let run = || timeline::run_of(self.path.as_deref(), Path::new(&self.circuit.model.path));
        match &self.about {
            About::Circuit => run().or(Some(PathBuf::from(&self.circuit.model.path)).filter(there)),
            About::Published(payload) => payload.model.clone().filter(there).or_else(run),
            // Of a checkpoint that was named, not the latest of its run.
            About::Model(_) => self.path.clone().filter(there).or_else(run),
        }
    }

    /// What it is called.
    pub fn name(&self) -> String {
        if !matches!(self.about, About::Circuit) {
            return self.circuit.task.name.clone();
        }
        let stem = self.path.as_ref().and_then(|path| path.file_stem()).map(|stem| stem.to_string_lossy().into_owned());
        stem.unwrap_or_else(|| format!("{} (example)", self.circuit.task.name))
    }

    /// What files that are made of it begin with: a task's name from elsewhere leads to no other folder.
    pub fn file_stem(&self) -> String {
        let name = Path::new(&self.circuit.task.name).file_name();
        name.map_or_else(|| "circuit".into(), |name| name.to_string_lossy().into_owned())
    }

    /// A token as text.
    pub fn token(&self, id: u32) -> String {
        self.tokenizer.as_ref().map_or_else(|| notation::unknown(id), |tokenizer| tokenizer.token_text(id))
    }
}

/// The circuit files of a run or folder, by name. Files with two dots in their names say more about circuits.
fn circuits(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let inner = folder.join("circuits");
    let folder = if inner.is_dir() { &inner } else { folder };
    let files = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let circuit = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "json")
            && path.file_stem().is_some_and(|stem| !stem.to_string_lossy().contains('.'))
            && Circuit::load(path).is_ok()
    };
    let mut found: Vec<_> = files.filter(circuit).collect();
    found.sort();
    Ok(found)
}

/// The statistics in a file, which is checked to be about the circuit's model.
fn measured(path: &Path, hash: &str) -> gossamer::Result<Statistics> {
    let statistics = Statistics::load(path)?;
    expect_model(path.display().to_string(), "model", &statistics.model, hash)?;
    Ok(statistics)
}

/// The tokenizer of the run that the circuit lies in, or else of the model that it names.
fn tokenizer(path: &Path, circuit: &Circuit) -> Option<Tokenizer> {
    let above = path.ancestors().skip(1).take(3).map(Path::to_path_buf);
    let mut folders = above.chain([PathBuf::from(&circuit.model.path)]);
    folders.find_map(|folder| Tokenizer::load(folder.join("tokenizer.json")).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_another_model_are_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("quotes.json");
        let circuit = Document::example().unwrap().circuit;
        circuit.save(&file).unwrap();
        let mut statistics =
            Statistics { version: 1, model: "sha256:other".into(), task: "quotes".into(), seed: 0, nodes: Vec::new() };
        statistics.save(file.with_extension("statistics.json")).unwrap();
        let said = Document::open(&file).unwrap().statistics.unwrap_err();
        assert!(said.contains("sha256:other") && said.contains(&circuit.model.hash), "{said}");
        statistics.model = circuit.model.hash;
        statistics.save(file.with_extension("statistics.json")).unwrap();
        assert_eq!(Document::open(&file).unwrap().statistics, Ok(statistics));
    }
}

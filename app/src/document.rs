//! Opening files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use gossamer::circuits::{Circuit, Statistics};
use gossamer::text::tokenizer::Tokenizer;

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
        Ok(Self { path: None, circuit, statistics, tokenizer: None, siblings: Vec::new() })
    }

    /// Opens a circuit file, or the first circuit of a run or of a folder.
    ///
    /// # Errors
    /// What is wrong, and what to do about it.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            let found = circuits(path);
            let Some(first) = found.first() else {
                bail!(
                    "{0} has no circuits: find one with `train circuit {0} --task single_double_quote`",
                    path.display()
                );
            };
            return Self::open(first);
        }
        if path.extension().is_some_and(|extension| extension == "pt" || extension == "safetensors") {
            bail!(
                "{} is no circuit file: open the run's folder, or a .json file in its folder `circuits`",
                path.display()
            );
        }
        let circuit = Circuit::load(path).context("only circuit files and folders with circuits can be opened")?;
        let statistics = path.with_extension("statistics.json");
        let statistics = match statistics.exists() {
            true => Statistics::load(&statistics).map_err(|e| e.to_string()),
            false => Err(format!("measure them with `gossamer circuit stats {}`", path.display())),
        };
        let tokenizer = tokenizer(path, &circuit);
        let siblings = path.parent().map(circuits).unwrap_or_default();
        Ok(Self { path: Some(path.into()), circuit, statistics, tokenizer, siblings })
    }

    /// What it is called.
    pub fn name(&self) -> String {
        let stem = self.path.as_ref().and_then(|path| path.file_stem()).map(|stem| stem.to_string_lossy().into_owned());
        stem.unwrap_or_else(|| format!("{} (example)", self.circuit.task.name))
    }

    /// A token as text.
    pub fn token(&self, id: u32) -> String {
        let known = self.tokenizer.as_ref().and_then(|tokenizer| tokenizer.token_str(id));
        known.unwrap_or_else(|| format!("⟨{id}⟩"))
    }
}

/// The circuit files of a run or folder, by name. Files with two dots in their names say more about circuits.
fn circuits(folder: &Path) -> Vec<PathBuf> {
    let inner = folder.join("circuits");
    let folder = if inner.is_dir() { &inner } else { folder };
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let circuit = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "json")
            && path.file_stem().is_some_and(|stem| !stem.to_string_lossy().contains('.'))
            && Circuit::load(path).is_ok()
    };
    let mut found: Vec<_> = files.filter(circuit).collect();
    found.sort();
    found
}

/// The tokenizer of the run that the circuit lies in, or else of the model that it names.
fn tokenizer(path: &Path, circuit: &Circuit) -> Option<Tokenizer> {
    let above = path.ancestors().skip(1).take(3).map(Path::to_path_buf);
    let mut folders = above.chain([PathBuf::from(&circuit.model.path)]);
    folders.find_map(|folder| Tokenizer::load(folder.join("tokenizer.json")).ok())
}

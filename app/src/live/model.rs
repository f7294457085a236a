//! A circuit's model, with what prompts need.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use gossamer::bridges::BridgeFile;
use gossamer::circuits::{Circuit, ModelRef, mean_activations, stored_means};
use gossamer::device::Device;
use gossamer::formats::ModelFiles;
use gossamer::model::{Model, Site, WeightFormat};
use gossamer::observer::Observer;
use gossamer::text::python;
use gossamer::text::sequences::sequences;
use gossamer::text::tokenizer::Tokenizer;

/// How many tokens means are taken over if none are stored: the default of `train circuit`.
const MEAN_TOKENS: usize = 65_536;

pub struct Opened {
    /// Where it was found.
    pub path: PathBuf,
    /// The folder of its weights, where bridges are.
    pub folder: PathBuf,
    /// Whether there are bridges.
    pub bridged: bool,
    pub model: Model,
    pub hash: String,
    pub tokenizer: Tokenizer,
    pub circuit: Circuit,
    /// The mean activations by site, or why they are not known.
    pub means: Result<BTreeMap<Site, Vec<f32>>, String>,
}

impl Opened {
    /// Opens the circuit's model: the one at `named`, or else the first of the run around `file`,
    /// the circuit's own path and `known`. A circuit without its model's hash (published, or of a
    /// model without circuits) cannot tell models of the same sizes apart: only `known` is tried.
    pub fn find(file: Option<&Path>, circuit: &Circuit, known: Option<&Path>, named: Option<&Path>) -> Result<Self> {
        let paths = match named {
            Some(path) => vec![path.to_path_buf()],
            None if circuit.model.hash.is_empty() => known.into_iter().map(Path::to_path_buf).collect(),
            None => {
                let around = file.into_iter().flat_map(|file| file.ancestors().skip(1).take(3)).map(Path::to_path_buf);
                let known = known.into_iter().map(Path::to_path_buf);
                around.chain([PathBuf::from(&circuit.model.path)]).chain(known).collect()
            }
        };
        let mut nearest = None;
        for path in paths {
            match Self::open(&path, file, circuit) {
                Ok(opened) => return Ok(opened),
                // The nearest model's error says most; folders without a model say nothing.
                Err(error) if named.is_some() || ModelFiles::open(&path).is_ok() => nearest = nearest.or(Some(error)),
                Err(_) => {}
            }
        }
        let was = &circuit.model.path;
        match nearest {
            Some(error) => Err(error),
            None => bail!(
                "The model that this circuit is a part of is not next to it (it was at {was}). Name its run, its checkpoint or its folder below."
            ),
        }
    }

    fn open(path: &Path, file: Option<&Path>, circuit: &Circuit) -> Result<Self> {
        let files = ModelFiles::open(path)?;
        if ModelRef::new(&circuit.model.path, &circuit.model.hash, &files.config) != circuit.model {
            bail!("{} has other sizes than the circuit's model: name another one below", path.display());
        }
        let tokenizer = files.tokenizer.as_ref().with_context(|| {
            format!("{} comes without a tokenizer.json: put the model's tokenizer next to its weights", path.display())
        })?;
        let tokenizer = Tokenizer::load(tokenizer)?;
        let model = files.load(WeightFormat::Sparse, &Device::open("auto")?)?;
        let hash = model.hash()?;
        if !circuit.model.hash.is_empty() {
            circuit.check_model(&hash).with_context(|| path.display().to_string())?;
        }
        let means = means(file, circuit, (&model, &hash), &tokenizer).map_err(|e| format!("{e:#}"));
        let folder = files.weights_path.parent().unwrap_or(Path::new("")).to_path_buf();
        let bridged = BridgeFile::is_in(&folder);
        Ok(Self { path: path.into(), folder, bridged, model, hash, tokenizer, circuit: circuit.clone(), means })
    }
}

fn means(
    file: Option<&Path>,
    circuit: &Circuit,
    (model, hash): (&Model, &str),
    tokenizer: &Tokenizer,
) -> Result<BTreeMap<Site, Vec<f32>>> {
    let folder = file.and_then(|file| match file.is_dir() {
        true => Some(file.join("circuits")),
        false => file.parent().map(Path::to_path_buf),
    });
    let stored = folder.map(|folder| stored_means(&folder, hash)).transpose()?.flatten();
    let means = match stored {
        Some(means) => means,
        None => {
            let documents = python::documents(0).map(Ok);
            mean_activations(
                model,
                &sequences(documents, tokenizer, model.config.block_size, MEAN_TOKENS)?,
                &Observer::default(),
            )?
        }
    };
    if !circuit.model.hash.is_empty() {
        circuit.check_means(&means).context("put the means.safetensors of the circuit's folder next to it")?;
    }
    Ok(means)
}

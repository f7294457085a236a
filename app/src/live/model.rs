//! The model that a circuit is a part of, opened with all that prompts need.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use gossamer::circuits::{Circuit, ModelRef, mean_activations, stored_means};
use gossamer::device::Device;
use gossamer::formats::ModelFiles;
use gossamer::model::{Model, Site, WeightFormat};
use gossamer::observer::Observer;
use gossamer::text::python;
use gossamer::text::sequences::sequences;
use gossamer::text::tokenizer::Tokenizer;

/// Tokens of generated text that means are taken over where none are kept: as many as `train circuit` takes unless told otherwise.
const MEAN_TOKENS: usize = 65_536;

/// A circuit's model.
pub struct Opened {
    /// Where it was found.
    pub path: PathBuf,
    /// The folder of its weights, in which bridges would lie.
    pub folder: PathBuf,
    /// The model.
    pub model: Model,
    /// Its hash.
    pub hash: String,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// The circuit.
    pub circuit: Circuit,
    /// What nodes stand at where they are ablated, or why that is not known.
    pub means: Result<BTreeMap<Site, Vec<f32>>, String>,
}

impl Opened {
    /// Opens the model of the circuit from `file`: the one at `named`, or else that of the run around the file, or else where the circuit
    /// says that it was, or else the one at `known`. Of a circuit without its model's hash (published, or of a model without circuits), only
    /// `known` is sought: nothing tells models of the same sizes around it apart.
    ///
    /// # Errors
    /// What is wrong, and what to do about it.
    pub fn find(file: Option<&Path>, circuit: &Circuit, known: Option<&Path>, named: Option<&Path>) -> Result<Self> {
        let places = match named {
            Some(path) => vec![path.to_path_buf()],
            None if circuit.model.hash.is_empty() => known.into_iter().map(Path::to_path_buf).collect(),
            None => {
                let around = file.into_iter().flat_map(|file| file.ancestors().skip(1).take(3)).map(Path::to_path_buf);
                let known = known.into_iter().map(Path::to_path_buf);
                around.chain([PathBuf::from(&circuit.model.path)]).chain(known).collect()
            }
        };
        let mut wrong = None;
        for path in places {
            match Self::open(&path, file, circuit) {
                Ok(opened) => return Ok(opened),
                // What is nearest to the circuit says most; folders around it that hold no model say nothing.
                Err(error) if named.is_some() || ModelFiles::open(&path).is_ok() => wrong = wrong.or(Some(error)),
                Err(_) => {}
            }
        }
        let was = &circuit.model.path;
        match wrong {
            Some(error) => Err(error),
            None => bail!(
                "The model that this circuit is a part of is not beside it (it was {was}). Name its run, its checkpoint or its folder below."
            ),
        }
    }

    fn open(path: &Path, file: Option<&Path>, circuit: &Circuit) -> Result<Self> {
        let files = ModelFiles::open(path)?;
        if ModelRef::new(&circuit.model.path, &circuit.model.hash, &files.config) != circuit.model {
            bail!("{} has other sizes than the circuit's model: name another one below", path.display());
        }
        let tokenizer = files.tokenizer.as_ref().with_context(|| {
            format!("{} comes without a tokenizer.json: put the model's tokenizer beside its weights", path.display())
        })?;
        let tokenizer = Tokenizer::load(tokenizer)?;
        let model = files.load(WeightFormat::Sparse, &Device::open("auto")?)?;
        let hash = model.hash()?;
        if !circuit.model.hash.is_empty() {
            circuit.check_model(&hash).with_context(|| path.display().to_string())?;
        }
        let means = means(file, circuit, (&model, &hash), &tokenizer).map_err(|e| format!("{e:#}"));
        let folder = files.weights_path.parent().unwrap_or(Path::new("")).to_path_buf();
        Ok(Self { path: path.into(), folder, model, hash, tokenizer, circuit: circuit.clone(), means })
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
        circuit.check_means(&means).context("put the means.safetensors of the circuit's folder beside it")?;
    }
    Ok(means)
}

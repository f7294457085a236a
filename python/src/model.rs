//! A model: what it computes, and what one sees and changes inside.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use gossamer::device::Device;
use gossamer::files::HostTensor;
use gossamer::formats::{FindOptions, ModelFiles, Pretrained};
use gossamer::model::{
    Generator, Gradients as LibraryGradients, Hooks, NoHooks, Parameters, Run, Sampling, SiteGradient, WeightFormat,
    ranked,
};
use gossamer::pipelines::{EvaluateRequest, TokenSource, evaluate, interventions};
use gossamer::text::source::Source;
use numpy::{PyArray1, PyArrayDyn};
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::activations::Activations;
use crate::arguments::{Tokens, array, edits, means, metric, sites, tensor};
use crate::compute::{compute, compute_here};
use crate::config::Config;
use crate::errors::OrRaise;
use crate::hooks::{PythonHooks, Signals, functions};
use crate::tokenizer::Tokenizer;

/// Opens a model with its tokenizer.
///
/// `spec` is a path (a run, a checkpoint, a model folder, a file of weights) or a Hub id such as
/// `"openai/circuit-sparsity"`. `device` is "auto", "cpu", "gpu", "gpu:INDEX" or
/// "gpu:PART-OF-A-NAME". With `offline`, nothing is fetched. `tokenizer` is a `tokenizer.json` to
/// use instead of the model's own. With `sparse=False`, matrices stay dense in memory.
#[pyfunction]
#[pyo3(signature = (spec, *, device="auto", offline=false, tokenizer=None, sparse=true))]
pub fn load(
    py: Python<'_>,
    spec: PathBuf,
    device: &str,
    offline: bool,
    tokenizer: Option<PathBuf>,
    sparse: bool,
) -> PyResult<Model> {
    let format = if sparse { WeightFormat::Sparse } else { WeightFormat::Dense };
    let options = FindOptions { offline, tokenizer, progress: true, ..FindOptions::default() };
    let path = spec.display().to_string();
    let found = compute(py, |_| ModelFiles::find(&spec, &options)?.pretrained(format, &Device::open(device)?));
    Ok(Model::new(found?, path))
}

/// A model with random weights from `seed`, untrained and without a tokenizer. `config` has the
/// published names: `{"n_layer": 2, "d_model": 128, …}`; what it leaves out has its default.
#[pyfunction]
#[pyo3(signature = (config, *, seed=0, device="auto"))]
pub fn new_model(py: Python<'_>, config: &Bound<'_, PyAny>, seed: u64, device: &str) -> PyResult<Model> {
    let config = configuration(config)?;
    let model = compute(py, |_| gossamer::model::Model::new(config, seed, &Device::open(device)?))?;
    Ok(Model::new(Pretrained { model, tokenizer: None }, String::new()))
}

/// A model of the parameters in `state_dict`, a mapping from published names to arrays or tensors.
/// `config` is as for `new_model`; `tokenizer` is a Tokenizer or None.
#[pyfunction]
#[pyo3(signature = (config, state_dict, *, tokenizer=None, device="auto"))]
pub fn from_state_dict(
    py: Python<'_>,
    config: &Bound<'_, PyAny>,
    state_dict: &Bound<'_, PyAny>,
    tokenizer: Option<&Bound<'_, Tokenizer>>,
    device: &str,
) -> PyResult<Model> {
    let config = configuration(config)?;
    let mut tensors = BTreeMap::new();
    for entry in state_dict.call_method0("items")?.try_iter()? {
        let (name, values): (String, Bound<'_, PyAny>) = entry?.extract()?;
        tensors.insert(name, tensor(&values)?);
    }
    let tokenizer = tokenizer.map(|tokenizer| (*tokenizer.get().0).clone());
    let model = compute(py, |_| {
        config.validate()?;
        let device = Device::open(device)?;
        let parameters = Parameters::from_host(&config, tensors, &device)?;
        Ok(gossamer::model::Model { config, parameters, device })
    })?;
    Ok(Model::new(Pretrained { model, tokenizer }, String::new()))
}

fn configuration(config: &Bound<'_, PyAny>) -> PyResult<gossamer::model::ModelConfig> {
    // Our own object, a dict and whatever else becomes one.
    let entries = config.py().get_type::<PyDict>().call1((config,))?;
    pythonize::depythonize(&entries).map_err(|e| PyValueError::new_err(format!("configuration: {e}")))
}

/// A model and its tokenizer. Threads can use one at the same time.
#[pyclass(frozen, module = "gossamer")]
pub struct Model {
    /// The model.
    pub pretrained: Arc<Pretrained>,
    tokenizer: Option<Arc<gossamer::text::tokenizer::Tokenizer>>,
    path: String,
}

impl Model {
    /// A model that was opened or trained; `path` says where it is.
    pub fn new(pretrained: Pretrained, path: String) -> Self {
        let tokenizer = pretrained.tokenizer.clone().map(Arc::new);
        Self { pretrained: Arc::new(pretrained), tokenizer, path }
    }

    /// Where it is from.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Runs prompts with edits or hooks, keeping activations at some sites.
    fn forward(&self, py: Python<'_>, prompts: &Bound<'_, PyAny>, changes: Changes, kept: Kept) -> PyResult<Run> {
        let prompts = Tokens::of_all(prompts, &self.pretrained)?;
        let model = &self.pretrained.model;
        changes.run(py, &self.pretrained, |hooks| model.run(&prompts, &kept.0, hooks))
    }
}

/// The sites whose activations are kept.
struct Kept(Vec<gossamer::model::Site>);

/// What changes a forward pass.
enum Changes<'py> {
    /// Edits in the command line's notation, with the run that patches come from and mean
    /// activations.
    Edits(Vec<gossamer::model::Edit>, Option<Vec<u32>>, Option<Bound<'py, PyAny>>),
    /// Python functions.
    Hooks(Vec<(gossamer::model::Site, Py<PyAny>)>),
}

impl<'py> Changes<'py> {
    fn new(
        model: &Pretrained,
        edits: Option<&Bound<'py, PyAny>>,
        hooks: Option<&Bound<'py, PyAny>>,
        patch_from: Option<&Bound<'py, PyAny>>,
        means: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        let edits = self::edits(edits)?;
        match hooks {
            Some(_) if !edits.is_empty() => Err(PyValueError::new_err("give edits or hooks, not both")),
            Some(hooks) => Ok(Self::Hooks(functions(hooks, &model.model.config)?)),
            None => {
                let patch_from = patch_from.map(|prompt| Tokens::of_one(prompt, Some(model))).transpose()?;
                Ok(Self::Edits(edits, patch_from, means.cloned()))
            }
        }
    }

    /// Computes with these hooks, which also end the computation at a signal.
    fn run<T: Send>(
        self,
        py: Python<'_>,
        model: &Pretrained,
        work: impl FnOnce(&mut dyn Hooks) -> gossamer::Result<T> + Send,
    ) -> PyResult<T> {
        match self {
            Self::Hooks(functions) => compute_here(py, |stop| work(&mut PythonHooks::new(functions, stop))),
            // Handing it to another thread would take longer than a short prompt does.
            Self::Edits(edits, ..) if edits.is_empty() => {
                compute_here(py, |stop| work(&mut (NoHooks, &mut Signals::new(stop))))
            }
            Self::Edits(edits, patch_from, means) => {
                let means = means.map(|means| self::means(&means, model)).transpose()?;
                compute_here(py, |stop| {
                    let edits = interventions(model, &edits, patch_from.as_deref(), means)?;
                    work(&mut (edits, &mut Signals::new(stop)))
                })
            }
        }
    }
}

#[pymethods]
impl Model {
    /// Logits (B, T, vocab_size) of the next token, and the activations at `sites`.
    ///
    /// `prompts` is a text, a list of texts, token ids, a list of such, or an array or tensor (T)
    /// or (B, T) of integers. Prompts of unequal length run together; what follows a prompt's end
    /// is 0. `sites` is a regular expression over the names of sites, or a list of names; all by
    /// default. `edits` and `hooks` change values on the way, see `run` and `run_with_hooks`.
    #[pyo3(signature = (prompts, sites=None, *, edits=None, hooks=None, patch_from=None, means=None))]
    #[allow(clippy::too_many_arguments)]
    fn run_with_cache<'py>(
        &self,
        py: Python<'py>,
        prompts: &Bound<'py, PyAny>,
        sites: Option<&Bound<'py, PyAny>>,
        edits: Option<&Bound<'py, PyAny>>,
        hooks: Option<&Bound<'py, PyAny>>,
        patch_from: Option<&Bound<'py, PyAny>>,
        means: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyArrayDyn<f32>>, Activations)> {
        let kept = Kept(self::sites(sites, &self.pretrained.model.config)?);
        let changes = Changes::new(&self.pretrained, edits, hooks, patch_from, means)?;
        let run = self.forward(py, prompts, changes, kept)?;
        let lengths = run.logits.lengths.clone();
        let logits = array(py, py.detach(|| run.logits.read()).or_raise()?)?;
        Ok((logits, Activations::new(run.cache, &lengths)))
    }

    /// Logits (B, T, vocab_size) after edits in the notation of `gossamer run`:
    /// `SITE[CHANNELS]@POSITIONS=VALUE`, where the value is a number, `+x`, `*x`, `mean` or
    /// `patch`.
    ///
    /// `patch_from` is the prompt that `patch` takes values from. `means` holds what `mean` sets:
    /// a file of `gossamer record --mean`, or a mapping from sites to arrays (width); by default
    /// they are taken over generated Python.
    #[pyo3(signature = (prompts, *, edits=None, patch_from=None, means=None))]
    fn run<'py>(
        &self,
        py: Python<'py>,
        prompts: &Bound<'py, PyAny>,
        edits: Option<&Bound<'py, PyAny>>,
        patch_from: Option<&Bound<'py, PyAny>>,
        means: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
        let changes = Changes::new(&self.pretrained, edits, None, patch_from, means)?;
        let run = self.forward(py, prompts, changes, Kept(Vec::new()))?;
        array(py, py.detach(|| run.logits.read()).or_raise()?)
    }

    /// Logits (B, T, vocab_size) of a forward pass in which Python functions change activations.
    ///
    /// `hooks` maps names of sites, or regular expressions over them, to functions
    /// `f(array, site)`. Each gets the activations (B, T, width), read-only, and returns an array
    /// that takes their place (of that shape, or one that numpy broadcasts to it), or None. What a
    /// function raises ends the run.
    fn run_with_hooks<'py>(
        &self,
        py: Python<'py>,
        prompts: &Bound<'py, PyAny>,
        hooks: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
        let changes = Changes::new(&self.pretrained, None, Some(hooks), None, None)?;
        let run = self.forward(py, prompts, changes, Kept(Vec::new()))?;
        array(py, py.detach(|| run.logits.read()).or_raise()?)
    }

    /// A metric, and its gradients at sites.
    ///
    /// `metric` is "loss" (mean cross-entropy in nats of all tokens but each prompt's first), or
    /// `("logit_diff", correct, incorrect)`: the difference of two logits after the prompts' last
    /// tokens, mean over the prompts. The answers are ids or texts of one token, or lists of them,
    /// one for each prompt.
    #[pyo3(signature = (prompts, metric=None, sites=None, *, edits=None, hooks=None, patch_from=None, means=None))]
    #[allow(clippy::too_many_arguments)]
    fn gradients<'py>(
        &self,
        py: Python<'py>,
        prompts: &Bound<'py, PyAny>,
        metric: Option<&Bound<'py, PyAny>>,
        sites: Option<&Bound<'py, PyAny>>,
        edits: Option<&Bound<'py, PyAny>>,
        hooks: Option<&Bound<'py, PyAny>>,
        patch_from: Option<&Bound<'py, PyAny>>,
        means: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Gradients> {
        let sites = self::sites(sites, &self.pretrained.model.config)?;
        let metric = match metric {
            Some(metric) => self::metric(metric, &self.pretrained)?,
            None => gossamer::model::Metric::Loss,
        };
        let prompts = Tokens::of_all(prompts, &self.pretrained)?;
        let changes = Changes::new(&self.pretrained, edits, hooks, patch_from, means)?;
        let model = &self.pretrained.model;
        let run = |hooks: &mut dyn Hooks| model.gradients_with_hooks(&prompts, &metric, &sites, hooks);
        let LibraryGradients { value, sites } = changes.run(py, &self.pretrained, run)?;
        let lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
        let of = |part: fn(&SiteGradient) -> &gossamer::model::PromptTensor| {
            let values = sites.iter().map(|(site, both)| (*site, part(both).clone()));
            Py::new(py, Activations::new(values, &lengths))
        };
        Ok(Gradients { value, gradients: of(|both| &both.gradient)?, cache: of(|both| &both.activation)? })
    }

    /// Mean cross-entropy in nats of all tokens but each prompt's first.
    #[pyo3(signature = (prompts, *, edits=None, hooks=None, patch_from=None, means=None))]
    fn loss<'py>(
        &self,
        py: Python<'py>,
        prompts: &Bound<'py, PyAny>,
        edits: Option<&Bound<'py, PyAny>>,
        hooks: Option<&Bound<'py, PyAny>>,
        patch_from: Option<&Bound<'py, PyAny>>,
        means: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<f64> {
        let prompts = Tokens::of_all(prompts, &self.pretrained)?;
        let changes = Changes::new(&self.pretrained, edits, hooks, patch_from, means)?;
        let model = &self.pretrained.model;
        changes.run(py, &self.pretrained, |hooks| model.loss_with_hooks(&prompts, hooks))
    }

    /// The prompt and its continuation: a text for a text, otherwise ids (T) of int64.
    ///
    /// With `temperature=0`, the most probable token is taken. `top_p` and `top_k` restrict the
    /// choice. Generation ends at `<|endoftext|>` if the tokenizer has it, unless
    /// `stop_at_end=False`. `special` reads special tokens that the prompt spells out as such.
    #[pyo3(signature = (
        prompt, *, max_new_tokens=64, temperature=1.0, top_k=None, top_p=None, seed=0, special=false, stop_at_end=true
    ))]
    #[allow(clippy::too_many_arguments)]
    fn generate<'py>(
        &self,
        py: Python<'py>,
        prompt: &Bound<'py, PyAny>,
        max_new_tokens: usize,
        temperature: f32,
        top_k: Option<usize>,
        top_p: Option<f64>,
        seed: u64,
        special: bool,
        stop_at_end: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let pretrained = &*self.pretrained;
        let text = prompt.cast::<PyString>().ok();
        let mut tokens = match text {
            Some(text) => pretrained.encode(text.to_str()?, special).or_raise()?,
            None => Tokens::of_one(prompt, None)?,
        };
        let end_of_text = pretrained.tokenizer.as_ref().filter(|_| stop_at_end).and_then(|t| t.end_of_text());
        let sampling = Sampling { temperature, top_k, top_p, max_new_tokens, end_of_text, seed };
        sampling.validate().or_raise()?;
        let (length, model) = (tokens.len(), &pretrained.model);
        let tokens = compute(py, |stop| {
            let mut generator = Generator::new(model, &tokens, sampling)?;
            while let Some(token) = generator.next_token()? {
                tokens.push(token);
                stop.observer().check()?;
            }
            Ok(tokens)
        })?;
        match text {
            Some(text) => {
                let continuation = pretrained.tokenizer().or_raise()?.decode(&tokens[length..]).or_raise()?;
                Ok(PyString::new(py, &format!("{}{continuation}", text.to_str()?)).into_any())
            }
            None => Ok(PyArray1::from_iter(py, tokens.into_iter().map(i64::from)).into_any()),
        }
    }

    /// The attention patterns of a layer: (B, n_head, T, T), where row t of a head is how much
    /// position t attends to each position before it and to itself. 0 outside shorter prompts.
    fn attention<'py>(
        &self,
        py: Python<'py>,
        prompts: &Bound<'py, PyAny>,
        layer: usize,
    ) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
        let (prompts, model) = (Tokens::of_all(prompts, &self.pretrained)?, &self.pretrained.model);
        let layers = model.config.n_layer;
        if layer >= layers {
            return Err(PyIndexError::new_err(format!("layer {layer}; the model has {layers}")));
        }
        array(py, compute(py, |_| Ok(padded(model.attention(&prompts, layer)?)))?)
    }

    /// The `top` most probable next tokens after a prompt: a list of dicts with `token`, `text` and
    /// `probability`.
    #[pyo3(signature = (prompt, top=10, *, edits=None, hooks=None, patch_from=None, means=None))]
    #[allow(clippy::too_many_arguments)]
    fn next_tokens<'py>(
        &self,
        py: Python<'py>,
        prompt: &Bound<'py, PyAny>,
        top: usize,
        edits: Option<&Bound<'py, PyAny>>,
        hooks: Option<&Bound<'py, PyAny>>,
        patch_from: Option<&Bound<'py, PyAny>>,
        means: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let pretrained = &*self.pretrained;
        let tokens = Tokens::of_one(prompt, Some(pretrained))?;
        let changes = Changes::new(pretrained, edits, hooks, patch_from, means)?;
        let probabilities = changes.run(py, pretrained, |hooks| pretrained.model.next_token(&tokens, hooks))?;
        let row = |token: u32| {
            let row = PyDict::new(py);
            row.set_item("token", token)?;
            row.set_item("text", pretrained.tokenizer.as_ref().map(|tokenizer| tokenizer.token_text(token)))?;
            row.set_item("probability", probabilities[token as usize])?;
            Ok(row)
        };
        ranked(&probabilities).into_iter().take(top).map(row).collect()
    }

    /// The loss on text, cut into sequences of the model's `block_size`: a dict with `loss` in nats
    /// per token, `predictions` (their number) and the kurtosis of `final_resid`.
    ///
    /// `data` names files, folders and data sets of the Hub (`hub:OWNER/NAME`), whose texts are in
    /// the field or column `text_field`; without it, Python is generated.
    #[pyo3(signature = (data=Vec::new(), *, text_field="text", max_tokens=16_384, batch_size=8))]
    fn evaluate<'py>(
        &self,
        py: Python<'py>,
        data: Vec<PathBuf>,
        text_field: &str,
        max_tokens: usize,
        batch_size: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let source = Source::new(data).with_field(text_field);
        let tokens = TokenSource::Text { data: &source, max_tokens };
        let request = EvaluateRequest { tokens, batch_size, keep_losses: false };
        let result = compute(py, |stop| evaluate(&self.pretrained, &request, &stop.observer()))?;
        Ok(pythonize::pythonize(py, &result)?)
    }

    /// The texts of a prompt's tokens: of a text, or of ids.
    fn to_str_tokens(&self, prompt: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
        let tokens = Tokens::of_one(prompt, Some(&self.pretrained))?;
        let tokenizer = self.pretrained.tokenizer().or_raise()?;
        Ok(tokens.into_iter().map(|id| tokenizer.token_text(id)).collect())
    }

    /// The parameters by their published names, as arrays of float32.
    fn state_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let model = &self.pretrained.model;
        let tensors = compute(py, |_| model.parameters.to_host())?;
        let dict = PyDict::new(py);
        for (name, tensor) in tensors {
            dict.set_item(name, array(py, tensor)?)?;
        }
        Ok(dict)
    }

    /// The parameters by their published names, as torch tensors that share the arrays' memory.
    /// Needs torch.
    fn to_torch_state_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let torch = py.import("torch")?;
        let dict = self.state_dict(py)?;
        for (name, array) in dict.iter() {
            dict.set_item(name, torch.call_method1("from_numpy", (array,))?)?;
        }
        Ok(dict)
    }

    /// Writes the model and its tokenizer into the folder `path`, which is created; `load` opens
    /// it.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let pretrained = &*self.pretrained;
        compute(py, |_| {
            gossamer::files::create_folder(&path)?;
            pretrained.model.save(&path)?;
            pretrained.tokenizer.as_ref().map_or(Ok(()), |tokenizer| tokenizer.save(path.join("tokenizer.json")))
        })
    }

    /// Where it is from.
    #[getter(path)]
    fn python_path(&self) -> &str {
        &self.path
    }

    /// Shapes and variants.
    #[getter]
    fn config(&self, py: Python<'_>) -> PyResult<Config> {
        Config::new(py, &self.pretrained.model.config)
    }

    /// The tokenizer.
    #[getter]
    fn tokenizer(&self) -> PyResult<Tokenizer> {
        self.pretrained.tokenizer().or_raise()?;
        self.tokenizer.clone().map(Tokenizer).ok_or_else(|| PyValueError::new_err("the model has no tokenizer"))
    }

    /// The width of each site, by its name, in the order of the forward pass.
    #[getter]
    fn sites<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (config, dict) = (&self.pretrained.model.config, PyDict::new(py));
        config.sites().into_iter().try_for_each(|site| dict.set_item(site.to_string(), site.width(config)))?;
        Ok(dict)
    }

    /// The device, in words.
    #[getter]
    fn device(&self) -> String {
        self.pretrained.model.device.describe()
    }

    /// The hash of the parameters, by which circuits and bridges know their model.
    #[getter]
    fn hash(&self, py: Python<'_>) -> PyResult<String> {
        compute(py, |_| self.pretrained.model.hash())
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let model = &self.pretrained.model;
        let (nonzero, all) = compute(py, |_| model.hidden_weights())?;
        let device = if model.device.is_cpu() { "cpu".to_string() } else { model.device.describe() };
        let [nonzero, all] = [nonzero, all].map(gossamer::settings::grouped);
        let (layers, width) = (model.config.n_layer, model.config.d_model);
        Ok(format!("<Model {layers} layers, d_model {width}, {nonzero} of {all} hidden weights, {device}>"))
    }
}

/// Squares `(H, T, T)` of unequal T as one array `(B, H, T, T)`, filled up with zeros.
fn padded(patterns: Vec<HostTensor>) -> HostTensor {
    let heads = patterns.first().map_or(0, |pattern| pattern.shape[0]);
    let longest = patterns.iter().map(|pattern| pattern.shape[1]).max().unwrap_or(0);
    let shape = vec![patterns.len(), heads, longest, longest];
    let mut data = vec![0.0; shape.iter().product()];
    for (b, pattern) in patterns.iter().enumerate() {
        let length = pattern.shape[1];
        for (row, values) in pattern.data.chunks_exact(length.max(1)).enumerate() {
            let start = ((b * heads + row / length) * longest + row % length) * longest;
            data[start..start + length].copy_from_slice(values);
        }
    }
    HostTensor { shape, data }
}

/// A metric and its gradients, by `Model.gradients`.
#[pyclass(frozen, get_all, module = "gossamer")]
pub struct Gradients {
    /// The metric.
    value: f64,
    /// Its derivatives by the activations, (B, T, width) by site.
    gradients: Py<Activations>,
    /// The activations, (B, T, width) by site.
    cache: Py<Activations>,
}

#[pymethods]
impl Gradients {
    fn __getitem__<'py>(&self, py: Python<'py>, name: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.gradients.bind(py).as_any().get_item(name)
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok((self.value, self.gradients.clone_ref(py)).into_pyobject(py)?.into_any().try_iter()?.into_any())
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("<Gradients of {}, {}>", self.value, self.gradients.bind(py).repr()?))
    }
}

//! Circuits: found, opened, changed, evaluated, drawn.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gossamer::circuits as library;
use gossamer::circuits::evaluate::{Evaluation, EvaluationPlan};
use gossamer::circuits::pipeline::{SearchEvent, SearchObserver, SearchRequest, TaskOutcome, search_circuits};
use gossamer::circuits::prune::SearchSettings;
use gossamer::circuits::search::{CircuitSearch, Ranking, SearchPlan};
use gossamer::circuits::{Node, Nodes, stored_means};
use gossamer::formats::OpenedCircuit;
use gossamer::model::Site;
use gossamer::observer::Observer;
use gossamer::pipelines::{CircuitRequest, ExportRequest, circuit_page};
use gossamer::text::source::Source;
use numpy::PyArray1;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use crate::arguments::choice;
use crate::compute::{compute, compute_with};
use crate::errors::{OrRaise, exception};
use crate::model::Model;
use crate::tasks::task;
use crate::train::{Message, deliver};

type Means = BTreeMap<Site, Vec<f32>>;

/// The part of a model that does one task: nodes, the edges between them, and what both do.
#[pyclass(frozen, module = "gossamer")]
pub struct Circuit {
    circuit: library::Circuit,
    /// The mean activations that it was found with, if they are known.
    means: Option<Arc<Means>>,
    /// The task, if it is not built in.
    task: Option<library::tasks::Task>,
    /// Whether nodes were removed or added after it was measured.
    changed: bool,
}

#[pymethods]
impl Circuit {
    /// Reads a circuit file, and the mean activations next to it; or a published circuit
    /// (`viz_data.pt`).
    #[staticmethod]
    #[pyo3(signature = (path, *, task=None))]
    fn load(path: PathBuf, task: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let circuit = OpenedCircuit::open(&path).or_raise()?.circuit;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(".".as_ref());
        let means = stored_means(folder, &circuit.model.hash).or_raise()?.map(Arc::new);
        Ok(Self { circuit, means, task: task.map(self::task).transpose()?, changed: false })
    }

    /// Writes the circuit file. One whose nodes were changed must be measured first, by
    /// `describe`.
    fn save(&self, path: PathBuf) -> PyResult<()> {
        self.measured()?;
        self.circuit.save(path).or_raise()
    }

    /// The nodes, as dicts: `node` (its name), `site`, `layer`, `kind`, `index`, `head`, `channel`,
    /// `mean` over pretraining data, `tau` (its score), `ablation_delta` (the change of the task
    /// loss if it is ablated), the least, mean and greatest activation in each kind of prompt, and
    /// clean minus counterfactual at the last token (`difference_last`) and where pairs differ most
    /// (`difference_largest`; both None in published circuits).
    #[getter]
    fn nodes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for entry in &self.circuit.nodes {
            let row = PyDict::new(py);
            row.set_item("node", entry.node().to_string())?;
            row.set_item("site", entry.site.as_str())?;
            row.set_item("layer", entry.layer)?;
            row.set_item("kind", pythonize::pythonize(py, &entry.kind)?)?;
            row.set_item("index", entry.index)?;
            row.set_item("head", entry.head)?;
            row.set_item("channel", entry.channel)?;
            row.set_item("mean", entry.mean)?;
            row.set_item("tau", entry.tau)?;
            row.set_item("ablation_delta", entry.ablation_delta)?;
            for (name, range) in [("clean", entry.clean), ("counterfactual", entry.counterfactual)] {
                row.set_item(format!("{name}_min"), range.min)?;
                row.set_item(format!("{name}_mean"), range.mean)?;
                row.set_item(format!("{name}_max"), range.max)?;
            }
            row.set_item("difference_last", entry.difference.map(|difference| difference.last))?;
            row.set_item("difference_largest", entry.difference.map(|difference| difference.largest))?;
            list.append(row)?;
        }
        Ok(list)
    }

    /// The edges, as dicts: `source` and `target` (names of nodes), `weight`, and `effect` (the
    /// change of the task loss if the edge is ablated).
    #[getter]
    fn edges<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for edge in &self.circuit.edges {
            let row = PyDict::new(py);
            row.set_item("source", edge.from.to_string())?;
            row.set_item("target", edge.to.to_string())?;
            row.set_item("weight", edge.weight)?;
            row.set_item("effect", edge.effect)?;
            list.append(row)?;
        }
        Ok(list)
    }

    /// The losses measured when it was found, as `evaluate` gives them.
    #[getter]
    fn losses<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.measured()?;
        Ok(pythonize::pythonize(py, &self.circuit.losses)?)
    }

    /// The scale of the two answers' logit difference, and the shift added to it, fitted on train
    /// pairs: a dict.
    #[getter]
    fn calibration<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.measured()?;
        Ok(pythonize::pythonize(py, &self.circuit.calibration)?)
    }

    /// Everything in the file, as a dict.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(pythonize::pythonize(py, &self.circuit)?)
    }

    /// The task's name.
    #[getter]
    fn task(&self) -> &str {
        &self.circuit.task.name
    }

    /// The hash of its model.
    #[getter]
    fn model_hash(&self) -> &str {
        &self.circuit.model.hash
    }

    fn __len__(&self) -> usize {
        self.circuit.nodes.len()
    }

    fn __contains__(&self, node: &str) -> bool {
        node.parse().is_ok_and(|node: Node| self.circuit.nodes.iter().any(|entry| entry.node() == node))
    }

    /// The circuit without a node, or without a list of nodes, their edges and biases. `evaluate`
    /// gives its losses, and `describe` measures everything else anew.
    fn without(&self, nodes: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(self.edited(self.circuit.without(&self::nodes(nodes)?).or_raise()?))
    }

    /// The circuit with one more node, or with a list of more nodes. `evaluate` gives its losses,
    /// and `describe` finds their edges and measures everything anew.
    fn with_nodes(&self, nodes: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(self.edited(self.circuit.with(&self::nodes(nodes)?).or_raise()?))
    }

    /// The task losses of the model, of the circuit's nodes alone and of the model without them,
    /// on `train` and on held-out `test` pairs: a dict of dicts.
    ///
    /// `model`, `circuit` and `ablated` are losses in nats, calibrated but for the model's;
    /// `circuit_uncalibrated` and `ablated_uncalibrated` are unchanged; `accuracy_…` are shares of
    /// prompts. `ablation` says what the other nodes are set to: "mean" (over pretraining data),
    /// "task-mean" (over the train prompts), "zero", "resample" (their activations in another
    /// pair's prompt) or "interchange" (in the pair's other prompt). `calibration` is "none",
    /// "scale" or "affine", fitted on the train pairs. `task` is another task, `pairs` another
    /// number of pairs of each split, `means` the mean activations by site, if not those that the
    /// circuit was found with.
    #[pyo3(signature = (model, *, ablation="mean", calibration="scale", task=None, pairs=None, means=None))]
    #[allow(clippy::too_many_arguments)]
    fn evaluate<'py>(
        &self,
        py: Python<'py>,
        model: &Bound<'py, Model>,
        ablation: &str,
        calibration: &str,
        task: Option<&Bound<'py, PyAny>>,
        pairs: Option<usize>,
        means: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let plan = EvaluationPlan {
            ablation: choice("ablation", ablation)?,
            calibration: choice("calibration", calibration)?,
            pairs,
            controls: 0,
            parts: false,
            seed: 0,
        };
        Ok(pythonize::pythonize(py, &self.evaluation(py, model, &plan, task, means)?.losses())?)
    }

    /// All that `gossamer circuit eval --json` gives, as a dict: losses with and without
    /// calibration, `faithfulness`, `completeness`, `interchange_accuracy`, what every node and edge
    /// contributes (`minimality`), `controls` that should fail, and `checks`, which say whether all
    /// this is as it should be.
    ///
    /// `controls` is the number of random circuits; with `parts=False`, nodes and edges are not
    /// examined one by one. The other arguments are those of `evaluate`.
    #[pyo3(signature = (
        model, *, ablation="mean", calibration="scale", task=None, pairs=None, controls=10, parts=true, seed=0,
        means=None
    ))]
    #[allow(clippy::too_many_arguments)]
    fn check<'py>(
        &self,
        py: Python<'py>,
        model: &Bound<'py, Model>,
        ablation: &str,
        calibration: &str,
        task: Option<&Bound<'py, PyAny>>,
        pairs: Option<usize>,
        controls: usize,
        parts: bool,
        seed: u64,
        means: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (ablation, calibration) = (choice("ablation", ablation)?, choice("calibration", calibration)?);
        let plan = EvaluationPlan { ablation, calibration, pairs, controls, parts, seed };
        Ok(pythonize::pythonize(py, &self.evaluation(py, model, &plan, task, means)?)?)
    }

    /// The circuit measured anew in its model: activations, edges, effects, calibration, losses.
    fn describe(&self, py: Python<'_>, model: &Bound<'_, Model>) -> PyResult<Self> {
        let pretrained = &*model.get().pretrained;
        let hash = compute(py, |_| pretrained.model.hash())?;
        self.circuit.check_model(&hash).or_raise()?;
        let means = self.ablation(model, None)?;
        let circuit = self.search(py, model, means, |search| search.redescribe(&self.circuit, self.task.as_ref()))?;
        Ok(Self { circuit, means: self.means.clone(), task: self.task.clone(), changed: false })
    }

    /// What nodes outside of the circuit are set to in `model`: their means over pretraining data,
    /// (width) by site.
    fn means<'py>(&self, py: Python<'py>, model: &Bound<'py, Model>) -> PyResult<Bound<'py, PyDict>> {
        let ablation = self.ablation(model, None)?;
        let means = self.search(py, model, ablation, |search| {
            let blocks = search.nodes.layout.blocks().iter();
            Ok(blocks.map(|block| (block.site, search.nodes.means[block.range()].to_vec())).collect::<Vec<_>>())
        })?;
        let dict = PyDict::new(py);
        means.into_iter().try_for_each(|(site, mean)| dict.set_item(site.to_string(), PyArray1::from_vec(py, mean)))?;
        Ok(dict)
    }

    /// The drawing, as SVG. `threshold` leaves out nodes and edges whose ablation changes the task
    /// loss by less, in nats.
    #[pyo3(signature = (threshold=None))]
    fn to_svg(&self, threshold: Option<f64>) -> PyResult<String> {
        Ok(library::svg(&self.part(threshold)?))
    }

    /// A page of HTML that needs no network: the drawing with all that is known of the nodes. With
    /// the model, that includes histograms, snippets of text, prompts and attention.
    /// Its sliders start at `threshold`.
    #[pyo3(signature = (model=None, threshold=None))]
    fn to_html(&self, py: Python<'_>, model: Option<&Bound<'_, Model>>, threshold: Option<f64>) -> PyResult<String> {
        self.measured()?;
        let pretrained = model.map(|model| model.get().pretrained.clone());
        compute(py, |stop| {
            let (data, max_tokens) = (&Source::default(), SearchRequest::MEAN_TOKENS);
            let (circuit, file, task) = (&self.circuit, Path::new(""), self.task.clone());
            let circuit = CircuitRequest { circuit, file, payload: None, task, data, max_tokens };
            let (model, observer) = (pretrained.as_deref(), &stop.observer());
            circuit_page(&[ExportRequest { circuit, model, threshold, measure: true, observer, note: &|_| () }])
        })
    }

    /// The graph in Graphviz's language, with nodes and edges as in `to_svg`.
    #[pyo3(signature = (threshold=None))]
    fn to_dot(&self, threshold: Option<f64>) -> PyResult<String> {
        Ok(library::dot(&self.part(threshold)?))
    }

    fn _repr_svg_(&self) -> String {
        library::svg(&self.circuit)
    }

    fn __str__(&self) -> String {
        library::show(&self.circuit)
    }

    fn __repr__(&self) -> String {
        let library::Circuit { task, nodes, edges, losses, .. } = &self.circuit;
        let loss = match self.changed {
            true => "not measured since nodes were changed".into(),
            false => {
                format!("test loss {:.3}, {:.3} uncalibrated", losses.test.circuit, losses.test.circuit_uncalibrated)
            }
        };
        format!("<Circuit of {}: {} nodes, {} edges, {loss}>", task.name, nodes.len(), edges.len())
    }
}

/// Where the mean activations of nodes come from.
enum MeansSource {
    Given(Arc<Means>),
    /// Generated Python, over which they are measured first.
    Text,
}

/// One node or several: names, or dicts that have a name.
fn nodes(nodes: &Bound<'_, PyAny>) -> PyResult<Vec<Node>> {
    let parse = |name: &Bound<'_, PyAny>| -> PyResult<Node> {
        let name = match name.cast::<PyDict>() {
            Ok(row) => row.get_item("node")?.unwrap_or_else(|| row.clone().into_any()),
            Err(_) => name.clone(),
        };
        let wrong = || PyTypeError::new_err(format!("{name} is no node; \"0.mlp.post_act[17]\" is one"));
        let text = name.cast::<PyString>().map_err(|_| wrong())?;
        text.to_str()?.parse().map_err(|error| PyValueError::new_err(format!("{text}: {error}")))
    };
    match nodes.is_instance_of::<PyString>() || nodes.is_instance_of::<PyDict>() {
        true => Ok(vec![parse(nodes)?]),
        false => nodes.try_iter()?.map(|node| parse(&node?)).collect(),
    }
}

impl Circuit {
    fn measured(&self) -> PyResult<()> {
        let message = "nodes were changed since this circuit was measured: `evaluate` gives its losses, \
                       `describe(model)` measures all of it";
        if self.changed { Err(PyValueError::new_err(message)) } else { Ok(()) }
    }

    /// The circuit without what matters less than a threshold.
    fn part(&self, threshold: Option<f64>) -> PyResult<library::Circuit> {
        match threshold {
            Some(least) => {
                self.measured()?;
                self.circuit.above_threshold(least).or_raise()
            }
            None => Ok(self.circuit.clone()),
        }
    }

    fn edited(&self, circuit: library::Circuit) -> Self {
        Self { circuit, means: self.means.clone(), task: self.task.clone(), changed: true }
    }

    fn evaluation(
        &self,
        py: Python<'_>,
        model: &Bound<'_, Model>,
        plan: &EvaluationPlan,
        task: Option<&Bound<'_, PyAny>>,
        means: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Evaluation> {
        if plan.ablation == library::Ablation::Zero && means.is_some() {
            return Err(PyValueError::new_err("means are not used with ablation=\"zero\""));
        }
        let means = self.ablation(model, means)?;
        let task = task.map(self::task).transpose()?.or_else(|| self.task.clone());
        compute_search(py, model, &self.circuit, means, |search, observer| {
            search.evaluation(&self.circuit, task.as_ref(), plan, observer)
        })
    }

    fn ablation(&self, model: &Bound<'_, Model>, means: Option<&Bound<'_, PyAny>>) -> PyResult<MeansSource> {
        if let Some(means) = means {
            return Ok(MeansSource::Given(Arc::new(crate::arguments::means(means, &model.get().pretrained)?)));
        }
        // Those of another model say nothing about this one.
        let hash = model.get().pretrained.model.hash().or_raise()?;
        let known = self.means.clone().filter(|_| hash == self.circuit.model.hash);
        Ok(known.map_or(MeansSource::Text, MeansSource::Given))
    }

    /// Computes with the model's nodes.
    fn search<T: Send>(
        &self,
        py: Python<'_>,
        model: &Bound<'_, Model>,
        means: MeansSource,
        work: impl FnOnce(&CircuitSearch<'_>) -> gossamer::Result<T> + Send,
    ) -> PyResult<T> {
        compute_search(py, model, &self.circuit, means, |search, _| work(search))
    }
}

/// Computes with the nodes of `model` that `circuit` may have.
fn compute_search<T: Send>(
    py: Python<'_>,
    model: &Bound<'_, Model>,
    circuit: &library::Circuit,
    means: MeansSource,
    work: impl FnOnce(&CircuitSearch<'_>, &Observer<'_>) -> gossamer::Result<T> + Send,
) -> PyResult<T> {
    let pretrained = &*model.get().pretrained;
    compute(py, |stop| {
        let (model, tokenizer) = (&pretrained.model, pretrained.tokenizer()?);
        let layout = circuit.layout(&model.config);
        let means = match means {
            MeansSource::Given(means) => means,
            MeansSource::Text => Arc::new(library::measured_means(
                model,
                tokenizer,
                &Source::default(),
                SearchRequest::MEAN_TOKENS,
                &stop.observer(),
            )?),
        };
        let mut nodes = Nodes::new(layout, &means, &model.device)?;
        nodes.stop = stop.flag().clone();
        nodes.exclude(&circuit.excluded);
        work(&CircuitSearch { model, nodes, tokenizer }, &stop.observer())
    })
}

/// Searches for circuits of a task. They and the mean activations are written into `folder`.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub fn find_circuits(
    py: Python<'_>,
    model: &Bound<'_, Model>,
    task: &Bound<'_, PyAny>,
    folder: PathBuf,
    target_loss: Option<f64>,
    settings: Vec<String>,
    tune: u64,
    tune_minutes: f64,
    disjoint: u64,
    exclude: &Bound<'_, PyAny>,
    ranking: &str,
    clean_up: bool,
    prune_edges: bool,
    data: Vec<PathBuf>,
    mean_tokens: usize,
    on_message: Py<PyAny>,
) -> PyResult<Vec<Circuit>> {
    let own = task.is_instance_of::<PyString>();
    let task = self::task(task)?;
    let mut plan = SearchSettings::default();
    settings.iter().try_for_each(|assignment| plan.set(assignment)).or_raise()?;
    plan.target_loss = target_loss.unwrap_or(plan.target_loss);
    let ranking: Ranking = choice("ranking", ranking)?;
    let model = model.get();
    let request = SearchRequest {
        tasks: vec![task.clone()],
        plan: SearchPlan { settings: plan, ranking, clean_up, prune_edges, trials: tune, minutes: tune_minutes },
        disjoint,
        exclude: nodes(exclude)?,
        data: Source::new(data),
        mean_tokens,
        folder,
        model_path: model.path().into(),
        skip_finished: false,
    };
    let receive = |py: Python<'_>, message| deliver(py, &on_message, message);
    let outcomes = compute_with(py, receive, |stop, messages| {
        let on_event = |event: SearchEvent<'_>| {
            let message = match event {
                SearchEvent::Means(stage) => {
                    Message::Stage(stage.name.into(), stage.done, stage.total, stage.unit.into())
                }
                SearchEvent::Step { done, total, step: Some(step), .. } => {
                    let name = format!("learning gates, loss {:.3}, {} nodes", step.loss, step.kept);
                    let unit = if tune_minutes > 0.0 { "seconds" } else { "steps" };
                    Message::Stage(name, done, Some(total), unit.into())
                }
                SearchEvent::Note(note) => Message::Note(note),
                _ => return,
            };
            messages.send(message);
        };
        let observer = SearchObserver { stop: stop.flag().clone(), on_event: &on_event };
        let pretrained = &model.pretrained;
        search_circuits(&pretrained.model, pretrained.tokenizer()?, &request, &observer)
    })?;
    let Some(outcome) = outcomes.into_iter().next() else { return Ok(Vec::new()) };
    let files = match outcome {
        TaskOutcome::Circuits(files) => files,
        TaskOutcome::None(error) | TaskOutcome::Failed(error) => return Err(exception(error)),
    };
    let means = stored_means(&request.folder, &model.pretrained.model.hash().or_raise()?).or_raise()?.map(Arc::new);
    let circuit = |file: &PathBuf| {
        let circuit = library::Circuit::load(file).or_raise()?;
        let task = (!own).then(|| task.clone());
        Ok(Circuit { circuit, means: means.clone(), task, changed: false })
    };
    files.iter().map(circuit).collect()
}

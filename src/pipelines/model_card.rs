//! The `README.md` of a model on the Hub, made of what its files and its run say.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::Result;
use crate::circuits::{Circuit, circuit_files};
use crate::formats::ModelFiles;
use crate::hub::DATASET_PREFIX;
use crate::model::hash::hash_of;
use crate::model::{self, Kind, ModelConfig, Parameters, WeightReport};
use crate::settings::grouped;
use crate::train::checkpoint::run_and_step;
use crate::train::config::RunConfig;
use crate::train::metrics;

/// Everything known of a model that a card tells.
struct Facts<'a> {
    id: &'a str,
    license: Option<&'a str>,
    config: &'a ModelConfig,
    weights: WeightReport,
    run: Option<RunFacts>,
    /// The folder that is pushed.
    folder: &'a Path,
}

/// What a run says of the checkpoint that is pushed.
struct RunFacts {
    config: RunConfig,
    step: u64,
    /// The last losses that were logged: their names, steps and values.
    losses: Vec<(&'static str, u64, f64)>,
    circuits: Vec<Circuit>,
    /// Circuits of other weights.
    others: usize,
}

/// The card of the model `files`, written as `folder`, which is pushed as `id`.
///
/// # Errors
/// Those of reading the weights, the run's settings, metrics and circuits.
pub(super) fn model_card(files: &ModelFiles, folder: &Path, id: &str, license: Option<&str>) -> Result<String> {
    let weights = model::inspect(&files.config, files.weights.as_ref(), 0)?;
    let run = RunFacts::of(files)?;
    Ok(Facts { id, license, config: &files.config, weights, run, folder }.card())
}

impl RunFacts {
    /// Those of the run that `files` are a checkpoint of; none where there is no run.
    fn of(files: &ModelFiles) -> Result<Option<Self>> {
        let checkpoint = files.weights_path.parent().unwrap_or(Path::new("."));
        let Some((folder, step)) = run_and_step(checkpoint) else { return Ok(None) };
        let settings = folder.join("config.toml");
        if !settings.exists() {
            return Ok(None);
        }
        let logged = metrics::read(&folder)?;
        let last = |name: &'static str| {
            let line = logged.iter().rev().find(|line| line.step <= step && line.get(name).is_some())?;
            Some((name, line.step, line.get(name)?))
        };
        let losses = ["validation_loss", "loss"].into_iter().filter_map(last).collect();
        let found: Vec<Circuit> =
            circuit_files(&folder.join("circuits"))?.iter().map(Circuit::load).collect::<Result<_>>()?;
        let hash = if found.is_empty() { String::new() } else { hash(files)? };
        let (circuits, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|circuit| circuit.model.hash == hash);
        Ok(Some(Self { config: RunConfig::load(&settings)?, step, losses, circuits, others: others.len() }))
    }
}

/// The hash of a model whose numbers are still on the disk.
fn hash(files: &ModelFiles) -> Result<String> {
    let shapes = Parameters::shapes(&files.config);
    let mut tensors = Vec::new();
    for (name, _, shape) in &shapes {
        tensors.push((name.as_str(), shape.as_slice()));
    }
    hash_of(tensors.into_iter().map(|(name, shape)| Ok((name, shape, files.weights.read(name)?.data))))
}

impl Facts<'_> {
    fn card(&self) -> String {
        let name = self.id.rsplit('/').next().unwrap_or(self.id);
        let mut parts = vec![self.front_matter(), format!("# {name}"), self.summary()];
        parts.push(format!("## Shapes\n\n{}", self.shapes()));
        parts.push(format!("## Densities\n\n{}", self.densities()));
        if let Some(run) = &self.run {
            parts.push(format!("## Training\n\n{}", run.training()));
            if !run.losses.is_empty() {
                parts.push(format!("## Losses\n\n{}", run.losses()));
            }
            if !run.circuits.is_empty() {
                parts.push(format!("## Circuits\n\n{}", run.circuits()));
            }
        }
        parts.push(format!("## Use\n\n{}", self.usage()));
        parts.join("\n\n") + "\n"
    }

    fn is_sparse(&self) -> bool {
        self.weights.matrix_nonzeros < self.weights.matrix_parameters
    }

    /// YAML for the Hub. JSON's strings are YAML's, too.
    fn front_matter(&self) -> String {
        let mut lines =
            vec!["---".to_string(), "library_name: gossamer".into(), "pipeline_tag: text-generation".into()];
        lines.push("tags:".into());
        lines.push("- gossamer".into());
        if self.is_sparse() {
            lines.push("- weight-sparse".into());
        }
        if self.run.as_ref().is_some_and(|run| !run.circuits.is_empty()) {
            lines.push("- circuits".into());
        }
        lines.extend(self.license.map(|license| format!("license: {}", Value::from(license))));
        let datasets: Vec<String> = self.run.iter().flat_map(RunFacts::datasets).collect();
        if !datasets.is_empty() {
            lines.push("datasets:".into());
            lines.extend(datasets.into_iter().map(|name| format!("- {}", Value::from(name))));
        }
        lines.push("---".into());
        lines.join("\n")
    }

    fn summary(&self) -> String {
        let w = &self.weights;
        let kind = if self.is_sparse() { "A weight-sparse transformer" } else { "A transformer" };
        let mut text = format!(
            "{kind} of {} parameters. Of its {} matrix weights {} are not zero (1 in {:.1}).",
            grouped(w.parameters),
            grouped(w.matrix_parameters),
            grouped(w.matrix_nonzeros),
            w.matrix_parameters as f64 / w.matrix_nonzeros.max(1) as f64
        );
        if let Some(run) = &self.run {
            text += &format!(" It was trained with gossamer on {}.", run.data());
        }
        text
    }

    fn shapes(&self) -> String {
        let c = self.config;
        let yes = |flag: bool| if flag { "yes" } else { "no" }.to_string();
        let topk = c.afrac.map_or("none".into(), |afrac| format!("keeps {afrac} at {}", c.afrac_loctypes.0));
        let rows = [
            ("layers", c.n_layer.to_string()),
            ("width of the residual stream", c.d_model.to_string()),
            ("attention heads", format!("{} of {} channels", c.n_head, c.head_width())),
            ("MLP neurons a layer", c.mlp_width().to_string()),
            ("vocabulary", c.vocab_size.to_string()),
            ("longest sequence", c.block_size.to_string()),
            ("norm", if c.rms_norm { "RMSNorm" } else { "LayerNorm" }.into()),
            ("activation", format!("{:?}", c.activation_type).to_lowercase()),
            ("AbsTopK", topk),
            ("attention sinks", yes(c.sink)),
            ("bigram table", yes(c.enable_bigram_table)),
            ("tied unembedding", yes(c.tied_unembed)),
        ];
        let rows = rows.map(|(what, value)| vec![what.to_string(), value]);
        table(&["", ""], rows)
    }

    /// A row for each kind of parameter that the model has.
    fn densities(&self) -> String {
        let of_kind = |kind: Kind| match kind {
            Kind::Hidden(_) => "matrices of attention and MLPs",
            Kind::Embedding => "embedding and unembedding",
            Kind::Position => "position embeddings",
            Kind::Bigram => "bigram table",
            Kind::Bias | Kind::NormBias | Kind::NormWeight | Kind::Sink | Kind::LogitsBias => "biases, norms, sinks",
        };
        let mut rows: Vec<(&str, u64, u64)> = Vec::new();
        for (name, kind, shape) in Parameters::shapes(self.config) {
            let what = of_kind(kind);
            let Some(tensor) = self.weights.tensors.iter().find(|tensor| tensor.name == name) else { continue };
            let entries = shape.iter().product::<usize>() as u64;
            match rows.iter_mut().find(|row| row.0 == what) {
                Some(row) => (row.1, row.2) = (row.1 + entries, row.2 + tensor.nonzeros),
                None => rows.push((what, entries, tensor.nonzeros)),
            }
        }
        let rows = rows.into_iter().map(|(what, entries, nonzeros)| {
            let density = format!("{:.5}", nonzeros as f64 / entries.max(1) as f64);
            vec![what.to_string(), grouped(entries), grouped(nonzeros), density]
        });
        table(&["parameters", "in all", "not zero", "density"], rows)
    }

    fn usage(&self) -> String {
        let id = self.id;
        let mut text = format!(
            "With gossamer:\n\n```sh\ngossamer generate {id} --prompt 'x = 1'\ngossamer inspect {id}\n```\n\n\
             In Python:\n\n```python\nimport gossamer as gs\n\nmodel = gs.load(\"{id}\")\n```"
        );
        if self.folder.join("final_model.pt").exists() && self.folder.join("beeg_config.json").exists() {
            text += "\n\nThe published code of \"Weight-sparse transformers have interpretable circuits\" (Gao et al. 2025) \
                     opens a copy of this repository with its `load_model`.";
        }
        if self.has_auto_map() {
            text += &format!(
                "\n\nWith transformers:\n\n```python\nfrom transformers import AutoModelForCausalLM\n\n\
                 model = AutoModelForCausalLM.from_pretrained(\"{id}\", trust_remote_code=True)\n```"
            );
        }
        text
    }

    fn has_auto_map(&self) -> bool {
        let config = std::fs::read(self.folder.join("config.json")).ok();
        let config: Option<Value> = config.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        config.is_some_and(|config| config["auto_map"].get("AutoModelForCausalLM").is_some())
    }
}

impl RunFacts {
    /// Data sets of the Hub.
    fn datasets(&self) -> impl Iterator<Item = String> {
        let hub = |path: &PathBuf| Some(hub_name(path)?.split(['@', ':']).next()?.to_string());
        self.config.data.paths.iter().filter_map(hub)
    }

    fn data(&self) -> String {
        let data = &self.config.data;
        if data.paths.is_empty() {
            let documents = grouped(data.generated_documents);
            return format!("{documents} documents of generated Python (version {})", data.generated_version);
        }
        // Where a file was is nobody else's concern.
        let own = |path: &PathBuf| path.file_name().unwrap_or_default().display().to_string();
        let name = |path: &PathBuf| format!("`{}`", hub_name(path).map_or_else(|| own(path), String::from));
        data.paths.iter().map(name).collect::<Vec<_>>().join(", ")
    }

    fn training(&self) -> String {
        let (config, steps) = (&self.config, self.config.train.steps);
        let tokens = self.step.saturating_mul(config.tokens_per_step());
        let mut text = format!(
            "Step {} of {}, {} tokens ({} a step).",
            grouped(self.step),
            grouped(steps),
            grouped(tokens),
            grouped(config.tokens_per_step())
        );
        if config.bridge.is_some() {
            text += " It was trained together with bridges to a dense model, which are not part of this repository.";
        }
        let mut settings = toml::Table::new();
        for (section, values) in
            [("train", toml::Value::try_from(&config.train)), ("sparsity", toml::Value::try_from(&config.sparsity))]
        {
            settings.extend(values.ok().map(|values| (section.to_string(), values)));
        }
        settings.insert(
            "run".into(),
            toml::Value::Table([("seed".to_string(), seed(config.run.seed))].into_iter().collect()),
        );
        match toml::to_string_pretty(&settings) {
            Ok(settings) => format!("{text} The settings:\n\n```toml\n{}\n```", settings.trim_end()),
            Err(_) => text,
        }
    }

    fn losses(&self) -> String {
        let shown = |name: &str| if name == "loss" { "training (last step logged)" } else { "validation" }.to_string();
        let rows = self.losses.iter().map(|&(name, step, loss)| vec![shown(name), grouped(step), format!("{loss:.4}")]);
        table(&["loss", "step", "nats a token"], rows)
    }

    fn circuits(&self) -> String {
        let rows = self.circuits.iter().map(|circuit| {
            let (c, test) = (&circuit.counts, &circuit.losses.test);
            let numbers = [test.model, test.circuit, test.ablated].map(|loss| format!("{loss:.3}"));
            let sizes = [c.nodes, c.edges].map(|n| grouped(n as u64));
            let task = format!("`{}`", circuit.task.name);
            [task].into_iter().chain(sizes).chain(numbers).collect()
        });
        let columns = ["task", "nodes", "edges", "loss of the model", "of the circuit alone", "without the circuit"];
        let mut text = format!(
            "Found in this model; task losses in nats, on templates that the search has not seen (chance is 0.693):\n\n{}",
            table(&columns, rows)
        );
        if self.others > 0 {
            text += &format!("\n\n{} circuits of other weights are left out.", self.others);
        }
        text
    }
}

/// The name of a data set of the Hub.
fn hub_name(path: &Path) -> Option<&str> {
    path.to_str()?.strip_prefix(DATASET_PREFIX)
}

fn seed(seed: u64) -> toml::Value {
    toml::Value::Integer(i64::try_from(seed).unwrap_or(i64::MAX))
}

/// A table in Markdown.
fn table(columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| {
        format!("| {} |", cells.iter().map(|cell| cell.replace('|', r"\|")).collect::<Vec<_>>().join(" | "))
    };
    let head: Vec<String> = columns.iter().map(ToString::to_string).collect();
    let mut lines = vec![line(&head), format!("|{}", "---|".repeat(columns.len()))];
    lines.extend(rows.into_iter().map(|row| line(&row)));
    lines.join("\n")
}

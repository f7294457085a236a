//! Loss against the size of circuits, computed by a background job.

use std::path::{Path, PathBuf};

use anyhow::Result;
use gossamer::circuits::Circuit;
use gossamer::circuits::curve::{Curve, CurvePoint};
use gossamer::circuits::pipeline::SearchRequest;
use gossamer::circuits::prune::PruningStep;
use gossamer::circuits::search::Ranking;
use gossamer::device::Device;
use gossamer::error::explain;
use gossamer::formats::ModelFiles;
use gossamer::model::WeightFormat;
use gossamer::observer::{Observer, Stage};
use gossamer::pipelines::{CircuitRequest, size_curve};
use gossamer::text::source::Source;

use crate::jobs::{Job, Reporter, with_own_threads};

enum Update {
    Progress(String),
    Done(Result<Curve, String>),
}

/// A curve that is computed, or the result.
pub struct SizeCurve {
    pub ranking: Ranking,
    /// What is being done.
    pub progress: String,
    /// `None` while it is computed.
    pub outcome: Option<Result<Curve, String>>,
    job: Job<Update>,
}

impl SizeCurve {
    /// Starts to rank the nodes of the model at `model` for the task of `circuit`, whose file `file`
    /// is, and to measure circuits of every size. `wake` is called after every update.
    pub fn start(
        (file, circuit): (PathBuf, Circuit),
        model: PathBuf,
        ranking: Ranking,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let job = Job::run(wake, move |reporter| {
            let done = with_own_threads(|| compute((&file, &circuit), &model, ranking, reporter));
            Update::Done(done.flatten().map_err(|e| explain(e.as_ref())))
        });
        Self { ranking, progress: "opening the model".into(), outcome: None, job }
    }

    /// Receives updates.
    pub fn poll(&mut self) {
        while let Some(update) = self.job.poll() {
            match update {
                Update::Progress(progress) => self.progress = progress,
                Update::Done(outcome) => self.outcome = Some(outcome),
            }
        }
        if self.job.failed() {
            self.outcome.get_or_insert_with(|| Err("stopped unexpectedly: start it again".into()));
        }
    }

    /// Asks it to stop soon.
    pub fn stop(&self) {
        self.job.stop();
    }

    pub fn stopping(&self) -> bool {
        self.job.stopping()
    }
}

/// The numbers of a point, one a line.
pub fn describe(point: &CurvePoint) -> [String; 3] {
    let CurvePoint { nodes, edges, loss, uncalibrated, accuracy, .. } = point;
    [
        format!("the first {nodes} nodes of the ranking, {edges} edges"),
        format!("held-out task loss {loss:.4}, uncalibrated {uncalibrated:.4}"),
        format!("accuracy {:.1} %", 100.0 * accuracy),
    ]
}

fn compute(
    (file, circuit): (&Path, &Circuit),
    model: &Path,
    ranking: Ranking,
    reporter: &Reporter<Update>,
) -> Result<Curve> {
    let say = |text| _ = reporter.update(Update::Progress(text));
    let model = ModelFiles::open(model)?.pretrained(WeightFormat::Sparse, &Device::open("auto")?)?;
    let data = Source::default();
    let max_tokens = SearchRequest::MEAN_TOKENS;
    let request = CircuitRequest { circuit, file, payload: None, task: None, data: &data, max_tokens };
    let report = |stage: &Stage| {
        let total = stage.total.map(|total| format!(" of {total}")).unwrap_or_default();
        say(format!("{}: {}{total} {}", stage.name, stage.done, stage.unit));
    };
    let on_step = |step: PruningStep| {
        say(format!("learning gates: step {}, loss {:.3}, {} nodes", step.step, step.loss, step.kept));
    };
    let observer = Observer::stopped_by(&reporter.stop).with_report(&report);
    Ok(size_curve(&model, &request, ranking, &on_step, (&reporter.stop, &observer))?)
}

//! What the command line and the explorer do with a model: for each verb a request, an observer for
//! progress, and a result that describes itself as a [`Report`](crate::report::Report). Training,
//! circuit search, bridges and conversion have theirs in their own modules.

pub mod bench;
mod check;
mod circuits;
mod devices;
mod evaluate;
mod export;
mod generate;
mod inspect;
mod model_card;
mod page;
mod plot;
mod predict;
mod push;
mod record;
mod tasks;
mod tokens;

pub use check::{CheckResult, check};
pub use circuits::{
    CircuitRequest, binarise_circuit, circuit_curve, circuit_statistics, edit_circuit, evaluate_circuit, search_row,
    search_table, size_curve, statistics_report,
};
pub use devices::devices;
pub use evaluate::{EvaluateRequest, evaluate};
pub use export::{CIRCUIT_EXPORTS, CircuitExport, ExportRequest, one_circuit};
pub use generate::{GenerateRequest, generate};
pub use inspect::{Inspection, inspect};
pub use page::{RunReport, circuit_page, run_report};
pub use plot::{Plot, PlotRequest, PlotX, plot};
pub use predict::{PredictRequest, Prediction, interventions, load_means, predict};
pub use push::{PushRequest, PushResult, PushedFile, push};
pub use record::{RecordRequest, Recording, record};
pub use tasks::{TaskEvaluation, TokenName, evaluate_task};
pub use tokens::{Prompt, TokenSource};

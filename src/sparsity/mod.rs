//! The rules of weight sparsity: how dense at which step, which entries survive, and when sparse
//! matrices are faster.

mod schedule;
mod select;

pub use schedule::{AnnealCurve, LrDecay, SPARSITY_SETTINGS, Schedule, Sharkfin};
pub use select::{apply_topk_and_decay, compress, keep_counts, kept};

//! Other people's files: published model folders, Hugging Face folders and the Hub, and the way
//! from one to the other.
//!
//! [`folder::ModelFiles`] finds a model; [`hub`] fetches it from the Hugging Face
//! Hub; [`convert()`] writes it as a folder that everyone reads. [`torch`] reads what `torch.save`
//! writes, without executing anything, and writes such files; [`viz`] reads and writes circuits as
//! they were published, [`attribution_graph`] writes them for viewers of attribution graphs.
//! [`OpenedCircuit`] is a circuit from a file of either kind.

mod assembled;
pub mod attribution_graph;
pub mod config;
pub mod convert;
mod families;
pub mod folder;
pub mod hub;
mod names;
mod opened_circuit;
mod pretrained;
mod sparse_pretrain;
pub mod torch;
pub mod viz;

pub use convert::{ConvertFormat, ConvertOptions, convert};
pub use folder::{FindOptions, ModelFiles};
pub use hub::Hub;
pub use opened_circuit::OpenedCircuit;
pub use pretrained::Pretrained;
pub use viz::Payload;

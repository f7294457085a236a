//! Weight-sparse transformers: a compute engine, a trainer, and the tools to look inside.
//!
//! Open a model, look at its activations, change them, and see what that does to the loss:
//!
//! ```
//! use gossamer::prelude::*;
//! # use std::collections::BTreeMap;
//!
//! # fn main() -> gossamer::Result<()> {
//! # let sizes = "vocab_size = 64\nn_layer = 2\nd_model = 16\nn_head = 2\nd_head = 8\nd_mlp = 32\nblock_size = 16";
//! # let config: ModelConfig = toml::from_str(sizes).expect("a configuration");
//! // A new model; `Model::from_pretrained("runs/quickstart", &device)?` opens one with its tokenizer.
//! let device = Device::cpu();
//! let model = Model::new(config, 0, &device)?;
//! let tokens = [1, 2, 3, 4];
//!
//! let sites = model.config.sites_matching("mlp.post_act|final_resid")?;
//! let Run { logits, cache } = model.run_with_cache(&tokens, &sites)?;
//! assert_eq!(logits.read()?.shape, [1, 4, 64]);
//! assert_eq!(cache.get("0.mlp.post_act".parse()?)?.read()?.shape, [1, 4, 32]);
//!
//! // The first layer's attention, silenced at the last position.
//! let edits = ["0.attn.resid_delta@-1=0".parse()?];
//! let mut ablation = Interventions::new(&model.config, &edits, BTreeMap::new(), BTreeMap::new())?;
//! let ablated = model.run_with_hooks(&tokens, &mut ablation)?;
//! assert_ne!(ablated.read()?.data, logits.read()?.data);
//!
//! let gradients = model.run_with_gradients(&tokens, &Metric::Loss, &sites)?;
//! assert!((gradients.value - model.loss(&tokens)?).abs() < 1e-6);
//! # Ok(())
//! # }
//! ```
//!
//! The layers point one way, from the bottom up:
//!
//! * [`device`]: where tensors live and kernels run. Knows nothing of models.
//! * [`ops`]: what can be computed; one file per operation, with its WGSL kernel in `shaders/` and
//!   its native CPU twin.
//! * [`tape`]: which operations ran, for the backward pass.
//! * [`observer`]: how a long computation reports and learns that it is to stop.
//! * [`hub`]: the Hugging Face Hub, its cache and its data sets.
//! * [`settings`]: what each setting may be, and how `KEY=VALUE` is read.
//! * [`model`], [`sparsity`], [`text`]: the transformer, the weight-sparsity rules, tokenizers and
//!   data.
//! * [`formats`]: models as other programs and the Hugging Face Hub keep them.
//! * [`train`]: batches, optimizer, the loop, checkpoints.
//! * [`circuits`]: the tasks that ask a model one question each, and the circuits that answer it.
//! * [`bridges`]: encoders and decoders between a dense and a sparse model.
//! * [`pipelines`]: a request and a result for each verb of the command line and the explorer.
//! * [`report`]: a result as text, CSV, JSON or a chart.
//! * [`example`]: a trained model, its bridges and circuits, built in.
//! * [`sweep`]: one command with many settings, and a table of the results.
//! * [`terminal`]: what the binaries share: messages, signals, progress.
//! * [`cli`]: the command lines themselves.
//! * [`prelude`]: the names that most programs need.
#![warn(missing_docs)]
// They panic where a line cannot be written.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod bench;
pub mod bridges;
pub mod chart;
pub mod check;
pub mod circuits;
pub mod cli;
pub mod device;
pub mod error;
pub mod example;
pub mod files;
pub mod formats;
pub mod hub;
pub mod model;
pub mod observer;
pub mod ops;
pub mod pipelines;
pub mod prelude;
pub mod report;
pub mod settings;
pub mod sparsity;
pub mod sweep;
pub mod tape;
pub mod terminal;
pub mod text;
pub mod train;

pub use error::{Error, Result};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

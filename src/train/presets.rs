//! Where a run's settings start from.

use super::config::{DataConfig, GradRms, OptimizerConfig, RunConfig, RuntimeConfig};
use crate::model::{ModelConfig, TopkSites};
use crate::sparsity::Schedule;
use crate::{Error, Result};

/// The names [`RunConfig::preset`] takes.
pub const PRESETS: [&str; 4] = ["quickstart", "circuits", "small", "paper"];

impl RunConfig {
    /// A preset by name: `quickstart` (about three minutes on two cores), `circuits` (quickstart's
    /// layers with twice the vocabulary, trained positions and nine times the training, in small
    /// steps: for the tasks and their circuits), `small` (4 layers, width 256), or `paper` (the
    /// published default: 8 layers, width 1024, targets 1/64 and 1/16).
    ///
    /// # Errors
    /// [`Error::Config`] for another name.
    pub fn preset(name: &str) -> Result<Self> {
        let paper = Self::paper();
        match name {
            "paper" => Ok(paper),
            "small" => Ok(Self {
                model: ModelConfig { n_layer: 4, n_head: 16, d_model: 256, ..paper.model },
                train: OptimizerConfig { steps: 2500, batch_size: 8, accumulate: 1, lr: 2e-2, ..paper.train },
                sparsity: Schedule { target_density: 1.0 / 16.0, embed_target_density: 1.0 / 4.0, ..paper.sparsity },
                data: DataConfig { generated_documents: 40_000, ..paper.data },
                run: RuntimeConfig { log_every: 10, eval_every: 250, checkpoint_every: 500, ..paper.run },
                bridge: None,
            }),
            "quickstart" => Ok(Self {
                model: ModelConfig {
                    n_layer: 2,
                    n_head: 8,
                    d_model: 128,
                    block_size: 64,
                    vocab_size: 512,
                    ..paper.model
                },
                train: OptimizerConfig { steps: 1200, batch_size: 64, accumulate: 1, lr: 4e-2, ..paper.train },
                sparsity: Schedule { target_density: 1.0 / 16.0, embed_target_density: 1.0 / 4.0, ..paper.sparsity },
                data: DataConfig { generated_documents: 8_000, ..paper.data },
                run: RuntimeConfig {
                    log_every: 10,
                    eval_every: 200,
                    checkpoint_every: 400,
                    eval_sequences: 256,
                    ..paper.run
                },
                bridge: None,
            }),
            "circuits" => Ok(Self::circuits(Self::preset("quickstart")?)),
            _ => Err(Error::config("preset", format!("`{name}` is not one of {}", PRESETS.join(", ")))),
        }
    }

    fn circuits(quick: Self) -> Self {
        Self {
            // 1,024 entries: every task has answers of one token.
            model: ModelConfig { vocab_size: 1024, ..quick.model },
            // Which of two lines came last is a matter of position; without any, fewer
            // tasks are learned. Of the same tokens more is learned in more and smaller
            // steps.
            train: OptimizerConfig { steps: 42_000, batch_size: 16, lr: 3e-2, train_positions: true, ..quick.train },
            sparsity: Schedule {
                target_density: 1.0 / 16.0,
                embed_target_density: 1.0 / 8.0,
                anneal_stop_frac: 0.4,
                ..quick.sparsity
            },
            data: DataConfig { generated_documents: 60_000, ..quick.data },
            run: RuntimeConfig { eval_every: 8400, checkpoint_every: 8400, ..quick.run },
            bridge: None,
        }
    }

    /// The published default: batches of 512×256 tokens, 32 billion tokens, learning rate 1.28e-2.
    fn paper() -> Self {
        Self {
            model: ModelConfig {
                block_size: 256,
                vocab_size: 2048,
                n_layer: 8,
                n_head: 64,
                d_head: Some(16),
                d_model: 1024,
                d_mlp: None,
                rms_norm: true,
                afrac: Some(0.25),
                afrac_loctypes: TopkSites::all_sublayer(),
                tied_unembed: false,
                enable_bigram_table: true,
                learnable_bigram_table: true,
                sink: true,
                ..ModelConfig::default()
            },
            train: OptimizerConfig {
                steps: 244_140,
                batch_size: 32,
                accumulate: 16,
                lr: 1.28e-2,
                warmup_frac: 0.01,
                sharkfin: true,
                beta1: 0.9,
                beta2: 0.95,
                eps: 0.1,
                weight_decay: 0.1,
                grad_rms: GradRms::Normalize,
                train_positions: false,
            },
            sparsity: Schedule {
                target_density: 1.0 / 64.0,
                embed_target_density: 1.0 / 16.0,
                anneal_start_frac: 0.01,
                anneal_stop_frac: 0.5,
                min_alive: 4,
                sparse_biases: false,
            },
            data: DataConfig { paths: Vec::new(), tokenizer: None, generated_documents: 2_000_000, val_fraction: 0.02 },
            run: RuntimeConfig {
                device: "auto".into(),
                seed: 0,
                log_every: 10,
                eval_every: 1000,
                eval_sequences: 128,
                checkpoint_every: 1000,
                keep_checkpoints: 3,
                samples: 3,
            },
            bridge: None,
        }
    }
}

//! What the files of a model are called.

/// Hugging Face's configuration, also that of our own checkpoints.
pub(super) const CONFIG: &str = "config.json";
/// The published configuration.
pub(super) const BEEG_CONFIG: &str = "beeg_config.json";
/// The weights in one file.
pub(super) const WEIGHTS: &str = "model.safetensors";
/// The weights in several files.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// The published weights.
pub(super) const TORCH: &str = "final_model.pt";
/// The tokenizer.
pub(super) const TOKENIZER: &str = "tokenizer.json";

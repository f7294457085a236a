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
/// The weights of Hugging Face's and other training programs, as `torch.save` writes them.
pub(super) const PYTORCH: &str = "pytorch_model.bin";
/// What Hugging Face's generation begins and ends with.
pub(super) const GENERATION_CONFIG: &str = "generation_config.json";
/// What `AutoTokenizer` needs to know of a tokenizer.
pub(super) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// The same, for older versions.
pub(super) const SPECIAL_TOKENS: &str = "special_tokens_map.json";
/// The tokenizer.
pub(super) const TOKENIZER: &str = "tokenizer.json";

/// What programs put before all names of a model that they hold inside another object, each perhaps
/// several times.
const WRAPPERS: [&str; 8] = [
    "_orig_mod.",
    "module.",
    "model.",
    "circuit_model.",
    "_forward_module.",
    "_fsdp_wrapped_module.",
    "base_model.",
    "net.",
];

/// Tensors that may be outside of such an object.
const OUTSIDE: [&str; 3] = ["lm_head.weight", "bigram_table", "final_logits_bias"];

/// The prefix of the published names in files that begin with `transformer.`.
const BODY: &str = "transformer.";

/// From the names in a file to the published ones.
pub(super) struct Naming {
    prefix: String,
    /// The file leaves `transformer.` away.
    bare: bool,
    /// Of two matrices that are one, the file holds the unembedding.
    only_unembedding: bool,
}

impl Naming {
    /// What the names in a file have before the published ones. `tied`: the unembedding is the
    /// embedding.
    pub(super) fn of<'a>(names: impl Iterator<Item = &'a String> + Clone, tied: bool) -> Self {
        let mut prefix = String::new();
        let stripped = |name: &'a String, prefix: &str| name.strip_prefix(prefix).unwrap_or(name);
        let carried = |wrapper: &&&str, prefix: &str| {
            let whole = format!("{prefix}{wrapper}");
            let inside = |name: &&'a String| name.starts_with(&whole);
            names.clone().any(|name| inside(&name))
                && names.clone().all(|name| inside(&name) || OUTSIDE.contains(&stripped(name, prefix)))
        };
        while let Some(wrapper) = WRAPPERS.iter().find(|wrapper| carried(wrapper, &prefix)) {
            prefix += wrapper;
        }
        let has = |tensor: &str| names.clone().any(|name| stripped(name, &prefix) == tensor);
        let bare = has("wte.weight") && !names.clone().any(|name| stripped(name, &prefix).starts_with(BODY));
        let embedding = if bare { "wte.weight" } else { "transformer.wte.weight" };
        let only_unembedding = tied && has("lm_head.weight") && !has(embedding);
        Self { prefix, bare, only_unembedding }
    }

    /// The published name of a tensor.
    pub(super) fn published(&self, name: &str) -> String {
        // Hugging Face's modelling code puts this before some or all of them.
        let name = name.strip_prefix(&self.prefix).unwrap_or(name);
        let name = name.strip_prefix("circuit_model.").unwrap_or(name);
        let in_body = ["wte.", "wpe.", "ln_f.", "h."].iter().any(|part| name.starts_with(part));
        match (self.bare && in_body, self.only_unembedding && name == "lm_head.weight") {
            (true, _) => format!("{BODY}{name}"),
            (_, true) => format!("{BODY}wte.weight"),
            _ => name.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(names: &[&str], tied: bool, want: &[&str]) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let naming = Naming::of(names.iter(), tied);
        let got: Vec<String> = names.iter().map(|name| naming.published(name)).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn wrappers_are_taken_off() {
        let published = ["lm_head.weight", "transformer.h.0.attn.c_attn.weight", "transformer.wte.weight"];
        check(&published, false, &published);
        for prefix in
            ["_orig_mod.", "module.", "model.", "module._orig_mod.", "_orig_mod.module.model.", "model.model."]
        {
            let all = published.map(|name| format!("{prefix}{name}"));
            check(&all.each_ref().map(String::as_str), false, &published);
            let outside = [published[0].to_string(), all[1].clone(), all[2].clone()];
            check(&outside.each_ref().map(String::as_str), false, &published);
        }
        check(&["circuit_model.lm_head.weight", published[2]], false, &[published[0], published[2]]);
        // A name that not all share is part of the name.
        check(&["model.a", "b"], false, &["model.a", "b"]);
    }

    #[test]
    fn the_body_may_go_without_its_name() {
        let bare = ["module.h.1.ln_1.weight", "module.lm_head.weight", "module.ln_f.weight", "module.wte.weight"];
        let want =
            ["transformer.h.1.ln_1.weight", "lm_head.weight", "transformer.ln_f.weight", "transformer.wte.weight"];
        check(&bare, false, &want);
        check(&["lm_head.weight"], true, &["transformer.wte.weight"]);
        check(&["lm_head.weight", "transformer.wte.weight"], true, &["lm_head.weight", "transformer.wte.weight"]);
    }
}

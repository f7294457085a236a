//! Names that do not exist, and what was meant by them.

use crate::Error;

/// What other programs call settings that have another name here. Where two groups of settings have
/// the thing under different names, each has a line of its own; the first whose name exists is
/// taken.
const OTHERS: &[(&str, &str)] = &[
    ("learning_rate", "lr"),
    ("max_lr", "lr"),
    ("peak_lr", "lr"),
    ("n_embd", "d_model"),
    ("n_embed", "d_model"),
    ("hidden_size", "d_model"),
    ("hidden_dim", "d_model"),
    ("embed_dim", "d_model"),
    ("embedding_dim", "d_model"),
    ("emb_dim", "d_model"),
    ("dim", "d_model"),
    ("width", "d_model"),
    ("n_heads", "n_head"),
    ("num_heads", "n_head"),
    ("heads", "n_head"),
    ("num_attention_heads", "n_head"),
    ("n_layers", "n_layer"),
    ("num_layers", "n_layer"),
    ("layers", "n_layer"),
    ("depth", "n_layer"),
    ("num_hidden_layers", "n_layer"),
    ("n_ctx", "block_size"),
    ("ctx", "block_size"),
    ("ctx_len", "block_size"),
    ("context", "block_size"),
    ("context_length", "block_size"),
    ("context_size", "block_size"),
    ("seq_len", "block_size"),
    ("seq_length", "block_size"),
    ("sequence_length", "block_size"),
    ("max_seq_len", "block_size"),
    ("max_length", "block_size"),
    ("n_positions", "block_size"),
    ("max_position_embeddings", "block_size"),
    ("head_dim", "d_head"),
    ("head_size", "d_head"),
    ("d_ff", "d_mlp"),
    ("n_mlp", "d_mlp"),
    ("d_inner", "d_mlp"),
    ("n_inner", "d_mlp"),
    ("ffn_dim", "d_mlp"),
    ("mlp_dim", "d_mlp"),
    ("intermediate_size", "d_mlp"),
    ("d_vocab", "vocab_size"),
    ("n_vocab", "vocab_size"),
    ("vocab", "vocab_size"),
    ("act_fn", "activation_type"),
    ("activation", "activation_type"),
    ("activation_function", "activation_type"),
    ("hidden_act", "activation_type"),
    ("normalization_type", "rms_norm"),
    ("norm", "rms_norm"),
    ("use_bias", "bias"),
    ("tie_word_embeddings", "tied_unembed"),
    ("tie_weights", "tied_unembed"),
    ("weight_tying", "tied_unembed"),
    ("attention_sink", "sink"),
    ("activation_sparsity", "afrac"),
    ("bs", "batch_size"),
    ("bs", "pairs"),
    ("batch", "batch_size"),
    ("batch", "pairs"),
    ("batch_size", "pairs"),
    ("micro_batch_size", "batch_size"),
    ("device_batch_size", "batch_size"),
    ("per_device_train_batch_size", "batch_size"),
    ("train_batch_size", "batch_size"),
    ("grad_accum", "accumulate"),
    ("grad_accumulation", "accumulate"),
    ("gradient_accumulation", "accumulate"),
    ("gradient_accumulation_steps", "accumulate"),
    ("epochs", "steps"),
    ("num_epochs", "steps"),
    ("n_epochs", "steps"),
    ("num_train_epochs", "steps"),
    ("iters", "steps"),
    ("iterations", "steps"),
    ("max_iters", "steps"),
    ("max_steps", "steps"),
    ("n_steps", "steps"),
    ("num_steps", "steps"),
    ("train_steps", "steps"),
    ("num_iterations", "steps"),
    ("warmup", "warmup_frac"),
    ("warmup_ratio", "warmup_frac"),
    ("warmup_steps", "warmup_frac"),
    ("warmup_iters", "warmup_frac"),
    ("lr_warmup_steps", "warmup_frac"),
    ("wd", "weight_decay"),
    ("adam_beta1", "beta1"),
    ("adam_beta2", "beta2"),
    ("betas", "beta1"),
    ("adam_eps", "eps"),
    ("adam_epsilon", "eps"),
    ("epsilon", "eps"),
    ("grad_clip", "grad_rms"),
    ("grad_clip", "clip"),
    ("max_grad_norm", "grad_rms"),
    ("max_grad_norm", "clip"),
    ("clip_grad_norm", "grad_rms"),
    ("density", "target_density"),
    ("sparsity", "target_density"),
    ("weight_sparsity", "target_density"),
    ("dataset", "paths"),
    ("data", "paths"),
    ("data_dir", "paths"),
    ("val_split", "val_fraction"),
    ("validation_split", "val_fraction"),
    ("random_seed", "seed"),
    ("log_interval", "log_every"),
    ("logging_steps", "log_every"),
    ("eval_interval", "eval_every"),
    ("eval_steps", "eval_every"),
    ("eval_iters", "eval_sequences"),
    ("save_interval", "checkpoint_every"),
    ("save_steps", "checkpoint_every"),
    ("save_total_limit", "keep_checkpoints"),
    ("l0_coef", "k_coef"),
    ("sparsity_coef", "k_coef"),
];

/// The key among `known` that other programs call `name`.
fn other_name<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let name = plain(name);
    let mut ours = OTHERS.iter().filter(|(theirs, _)| *theirs == name).map(|(_, ours)| *ours);
    ours.find_map(|ours| known.clone().find(|key| last(key) == ours))
}

/// The key among `known` that was probably meant by `name`: what other programs call so, or the
/// nearest. Keys may have sections; names may be written with dashes or in capitals.
pub fn suggestion<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    if let Some(key) = other_name(name, known.clone()) {
        return Some(key);
    }
    let bare = plain(name);
    let score = |key: &'a str| {
        let whole = distance(&name.to_lowercase().replace('-', "_"), key);
        (whole.min(distance(&bare, last(key))), key)
    };
    let (nearest, key) = known.map(score).min_by_key(|(score, _)| *score)?;
    // As many mistakes as a third of the name leave nothing to recognise it by.
    (nearest <= (bare.chars().count() / 3).max(1)).then_some(key)
}

/// The error about a name that does not exist.
pub(crate) fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Error {
    let steps = ["epochs", "num_epochs", "n_epochs", "num_train_epochs"].contains(&plain(name).as_str());
    let hint = match (suggestion(name, known.clone()), steps) {
        (Some(key), true) => format!("; training is measured in optimizer steps, `{key}`, or tokens"),
        (Some(key), false) => format!("; did you mean `{key}`?"),
        (None, _) => String::new(),
    };
    let section = format!("{name}.");
    match known.clone().any(|key| key.starts_with(&section)) {
        true => {
            let inside: Vec<_> = known.filter(|key| key.starts_with(&section)).collect();
            Error::config(name, format!("is a section; its settings are {}", inside.join(", ")))
        }
        false => Error::config(name, format!("there is no such setting{hint} (`train --settings` lists all)")),
    }
}

/// The name without its section, in small letters with underscores.
fn plain(name: &str) -> String {
    last(name).to_lowercase().replace('-', "_")
}

fn last(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

/// How many letters must be added, removed, replaced or swapped with their neighbour to make `b` of
/// `a`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 8] = [
        "model.n_head",
        "model.d_model",
        "model.block_size",
        "train.lr",
        "train.steps",
        "train.batch_size",
        "sparsity.target_density",
        "data.paths",
    ];

    #[test]
    fn the_meant_name_is_found() {
        let found = |name| suggestion(name, KEYS.iter().copied());
        for (name, want) in [
            ("learning_rate", Some("train.lr")),
            ("train.learning_rate", Some("train.lr")),
            ("learning-rate", Some("train.lr")),
            ("LR", Some("train.lr")),
            ("n_heads", Some("model.n_head")),
            ("model.n_embd", Some("model.d_model")),
            ("context_length", Some("model.block_size")),
            ("bs", Some("train.batch_size")),
            ("bacth_size", Some("train.batch_size")),
            ("target_desnity", Some("sparsity.target_density")),
            ("trian.lr", Some("train.lr")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(found(name), want, "{name}");
        }
        // One name, another group: pairs are a search's batch.
        assert_eq!(suggestion("bs", ["steps", "pairs"].into_iter()), Some("pairs"));
    }

    #[test]
    fn sections_and_epochs_are_explained() {
        let message = |name| unknown(name, KEYS.iter().copied()).to_string();
        assert!(message("train").contains("train.lr, train.steps"), "{}", message("train"));
        assert!(message("epochs").contains("optimizer steps, `train.steps`"), "{}", message("epochs"));
        assert!(message("colour").ends_with("no such setting (`train --settings` lists all)"), "{}", message("colour"));
    }
}

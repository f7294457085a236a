//! Names that do not exist, and what was meant by them.

use crate::Error;

/// Settings that other programs call differently, with their names. Where two groups of settings
/// have the thing under different names, each has a line of its own; the first whose name exists is
/// taken.
const OTHERS: &[(&str, &str)] = &[
    ("lr", "learning_rate max_lr peak_lr"),
    ("d_model", "n_embd n_embed hidden_size hidden_dim embed_dim embedding_dim emb_dim dim width"),
    ("n_head", "n_heads num_heads heads num_attention_heads"),
    ("n_layer", "n_layers num_layers layers depth num_hidden_layers"),
    ("block_size", "n_ctx ctx ctx_len context context_length context_size n_positions max_position_embeddings"),
    ("block_size", "seq_len seq_length sequence_length max_seq_len max_length"),
    ("d_head", "head_dim head_size"),
    ("d_mlp", "d_ff n_mlp d_inner n_inner ffn_dim mlp_dim intermediate_size"),
    ("vocab_size", "d_vocab n_vocab vocab"),
    ("activation_type", "act_fn activation activation_function hidden_act"),
    ("ln_eps", "layer_norm_epsilon layer_norm_eps norm_eps"),
    ("attention_layers", "attention_types layer_types"),
    ("window_size", "sliding_window window"),
    ("rms_norm", "normalization_type norm"),
    ("bias", "use_bias"),
    ("tied_unembed", "tie_word_embeddings tie_weights weight_tying"),
    ("sink", "attention_sink"),
    ("afrac", "activation_sparsity"),
    ("batch_size", "bs batch micro_batch_size device_batch_size per_device_train_batch_size train_batch_size"),
    ("pairs", "bs batch batch_size"),
    ("accumulate", "grad_accum grad_accumulation gradient_accumulation gradient_accumulation_steps"),
    ("steps", "epochs num_epochs n_epochs num_train_epochs iters iterations max_iters num_iterations"),
    ("steps", "max_steps n_steps num_steps train_steps"),
    ("warmup_frac", "warmup warmup_ratio warmup_steps warmup_iters lr_warmup_steps"),
    ("weight_decay", "wd"),
    ("beta1", "adam_beta1 betas"),
    ("beta2", "adam_beta2"),
    ("eps", "adam_eps adam_epsilon epsilon"),
    ("grad_rms", "grad_clip max_grad_norm clip_grad_norm"),
    ("clip", "grad_clip max_grad_norm"),
    ("target_density", "density sparsity weight_sparsity"),
    ("paths", "dataset data data_dir"),
    ("val_fraction", "val_split validation_split"),
    ("seed", "random_seed"),
    ("log_every", "log_interval logging_steps"),
    ("eval_every", "eval_interval eval_steps"),
    ("eval_sequences", "eval_iters"),
    ("checkpoint_every", "save_interval save_steps"),
    ("keep_checkpoints", "save_total_limit"),
    ("k_coef", "l0_coef sparsity_coef"),
];

/// The key among `known` that other programs call `name`.
fn other_name<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let name = plain(name);
    let mut ours =
        OTHERS.iter().filter(|(_, theirs)| theirs.split(' ').any(|other| other == name)).map(|(ours, _)| *ours);
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

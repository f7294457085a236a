//! Word lists: what programs talk about.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;

/// One subject area. A document keeps to one, so that its names belong together.
pub(crate) struct Domain {
    /// Things, singular and plural.
    pub(crate) things: &'static [(&'static str, &'static str)],
    /// Names of classes.
    pub(crate) classes: &'static [&'static str],
    /// Attributes that are integers.
    pub(crate) ints: &'static [&'static str],
    /// Attributes that are fractions.
    pub(crate) floats: &'static [&'static str],
    /// Attributes that are strings.
    pub(crate) strs: &'static [&'static str],
    /// Attributes that are true or false.
    pub(crate) flags: &'static [&'static str],
    /// What is done to the things.
    pub(crate) verbs: &'static [&'static str],
    /// Short strings: labels, keys and values.
    pub(crate) labels: &'static [&'static str],
}

/// All subject areas, from `words.toml`.
pub(crate) static DOMAINS: LazyLock<Vec<Domain>> = LazyLock::new(|| {
    let areas: Areas = toml::from_str(include_str!("words.toml")).unwrap_or_default();
    areas.domain.iter().map(Domain::new).collect()
});

#[derive(Default, Deserialize)]
struct Areas {
    domain: Vec<HashMap<String, String>>,
}

impl Domain {
    fn new(area: &HashMap<String, String>) -> Self {
        let words = |key: &str| -> Vec<&'static str> {
            let text: &'static str = area.get(key).cloned().unwrap_or_default().leak();
            text.split(' ').collect()
        };
        let list = |key: &str| -> &'static [&'static str] { words(key).leak() };
        Self {
            things: words("things").as_chunks().0.iter().map(|&[one, many]| (one, many)).collect::<Vec<_>>().leak(),
            classes: list("classes"),
            ints: list("ints"),
            floats: list("floats"),
            strs: list("strs"),
            flags: list("flags"),
            verbs: list("verbs"),
            labels: list("labels"),
        }
    }
}

pub(crate) const INTS: &[&str] = &[
    "count", "total", "index", "size", "limit", "n", "m", "x", "y", "step", "offset", "width", "height", "depth",
    "start", "end", "number", "value", "result", "best", "low", "high", "a", "b", "left", "right", "age", "length",
    "position", "k", "previous", "attempts", "seconds", "steps", "rows", "cols", "first", "second", "third",
];
pub(crate) const FLOATS: &[&str] = &[
    "rate",
    "ratio",
    "average",
    "price",
    "weight",
    "factor",
    "mean",
    "threshold",
    "area",
    "error",
    "alpha",
    "scale",
    "amount",
];
pub(crate) const STRS: &[&str] = &[
    "name", "text", "message", "label", "line", "key", "prefix", "title", "word", "output", "result", "current",
    "buffer", "sentence", "command", "answer", "status", "mode", "color", "letter", "header", "body", "phrase", "path",
    "filename", "s", "first", "last", "choice", "summary",
];
pub(crate) const BOOLS: &[&str] = &[
    "done", "found", "valid", "active", "enabled", "ready", "running", "finished", "verbose", "success", "changed",
    "empty", "debug",
];
pub(crate) const INT_LISTS: &[&str] = &[
    "numbers", "values", "scores", "data", "results", "sizes", "totals", "points", "counts", "stack", "queue", "row",
    "nums",
];
pub(crate) const STR_LISTS: &[&str] = &[
    "names", "words", "lines", "labels", "parts", "keys", "fields", "letters", "messages", "paths", "colors", "titles",
    "result",
];
pub(crate) const GRIDS: &[&str] = &["matrix", "grid", "table", "board", "rows", "pairs", "groups", "cells", "blocks"];
pub(crate) const SETS: &[&str] = &[
    "seen", "visited", "unique", "current", "tags", "known", "names", "found", "used", "letters", "ids", "allowed",
    "words",
];
pub(crate) const DICTS: &[&str] =
    &["counts", "scores", "prices", "ages", "table", "stock", "lookup", "totals", "index", "cache"];
pub(crate) const MAPS: &[&str] =
    &["config", "options", "settings", "mapping", "headers", "params", "info", "colors", "names", "data"];
pub(crate) const CONSTANTS: &[&str] = &[
    "MAX_SIZE",
    "LIMIT",
    "DEFAULT_SIZE",
    "MAX_RETRIES",
    "TIMEOUT",
    "WIDTH",
    "HEIGHT",
    "MIN_SCORE",
    "BATCH_SIZE",
    "STEPS",
];

/// What may precede an attribute or a thing in a longer name, by kind of variable.
pub(crate) const INT_HEADS: &[&str] = &["max_", "min_", "total_", "num_", "last_", "next_", "old_", "new_", "first_"];
pub(crate) const STR_HEADS: &[&str] = &["new_", "old_", "first_", "last_", "default_", "full_", "short_"];
pub(crate) const BOOL_HEADS: &[&str] = &["is_", "has_", "all_", "was_"];
pub(crate) const LIST_HEADS: &[&str] = &["new_", "all_", "old_", "sorted_", "valid_", "other_"];

pub(crate) const ADJECTIVES: &[&str] = &[
    "new", "old", "first", "last", "empty", "invalid", "missing", "wrong", "small", "big", "next", "free", "good",
    "bad", "fast", "current", "unknown", "hidden", "final", "simple",
];
pub(crate) const PLAIN_VERBS: &[&str] = &[
    "load", "save", "add", "remove", "find", "check", "update", "print", "open", "close", "start", "stop", "read",
    "write", "count",
];
pub(crate) const FILE_STEMS_READ: &[&str] = &[
    "input", "data", "config", "source", "settings", "names", "words", "train", "numbers", "users", "template", "notes",
];
pub(crate) const FILE_STEMS_WRITE: &[&str] = &[
    "output", "result", "log", "report", "backup", "summary", "export", "errors", "copy", "history", "results", "dump",
];
pub(crate) const FILE_ENDS: &[&str] = &[".txt", ".txt", ".csv", ".json", ".log", ".dat", ".md"];

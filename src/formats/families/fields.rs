//! The fields of another program's configuration, each read by its name.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// The fields of a configuration. It remembers which were asked for, so that the others can be
/// named.
pub(super) struct Fields {
    fields: Map<String, Value>,
    used: RefCell<BTreeSet<String>>,
}

impl Fields {
    pub(super) fn new(fields: Map<String, Value>) -> Self {
        Self { fields, used: RefCell::default() }
    }

    /// The value of a field; one that is null is as if it were not there.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        let (name, value) = self.fields.get_key_value(name)?;
        self.used.borrow_mut().insert(name.clone());
        Some(value).filter(|value| !value.is_null())
    }

    /// The fields of the object in a field.
    pub(super) fn section(&self, name: &str) -> Result<Self, String> {
        match self.get(name) {
            Some(Value::Object(fields)) => Ok(Self::new(fields.clone())),
            _ => Err(format!("`{name}` is not an object")),
        }
    }

    fn read<T>(&self, name: &str, kind: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>, String> {
        let wrong = |value: &Value| format!("`{name}` is {value}, not {kind}");
        self.get(name).map(|value| read(value).ok_or_else(|| wrong(value))).transpose()
    }

    /// A size, if it is there.
    pub(super) fn size(&self, name: &str) -> Result<Option<usize>, String> {
        self.read(name, "a whole number", |value| value.as_u64().and_then(|n| n.try_into().ok()))
    }

    pub(super) fn number(&self, name: &str, default: f64) -> Result<f64, String> {
        Ok(self.read(name, "a number", Value::as_f64)?.unwrap_or(default))
    }

    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, String> {
        Ok(self.read(name, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, String> {
        let kind = |value: &Value| format!("`{name}` is {value}, not a text");
        self.get(name).map(|value| value.as_str().ok_or_else(|| kind(value))).transpose()
    }

    /// What `table` has for the text in a field.
    pub(super) fn one_of<T: Copy>(&self, name: &str, default: &str, table: &[(&str, T)]) -> Result<T, String> {
        let text = self.text(name)?.unwrap_or(default);
        let found = table.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        let words = || table.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        found.ok_or_else(|| format!("`{name}` is `{text}`, which cannot be computed; {} can", words()))
    }

    /// Returns an error if a field is there that says anything but what `is_harmless` accepts.
    pub(super) fn refuse_unless(&self, name: &str, is_harmless: impl Fn(&Value) -> bool) -> Result<(), String> {
        match self.get(name).filter(|value| !is_harmless(value)) {
            Some(value) => {
                let text: String = value.to_string().chars().take(60).collect();
                Err(format!("`{name}` is {text}, which cannot be computed"))
            }
            None => Ok(()),
        }
    }

    /// Passes over the fields of these names.
    pub(super) fn ignore(&self, names: &str) {
        self.used.borrow_mut().extend(names.split_whitespace().map(str::to_string));
    }

    /// Passes over all fields.
    pub(super) fn ignore_all(&self) {
        self.used.borrow_mut().extend(self.fields.keys().cloned());
    }

    /// The fields that nothing asked for.
    pub(super) fn unused(&self) -> Vec<String> {
        let used = self.used.borrow();
        self.fields.keys().filter(|name| !used.contains(*name)).cloned().collect()
    }
}

//! Where a run's settings start from.

use toml::Table;

use super::config::RunConfig;
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
        let unreadable = |e: toml::de::Error| Error::config("preset", e.to_string());
        let presets = include_str!("presets.toml").parse().map_err(unreadable)?;
        match settings(&presets, name) {
            Some(settings) => settings.try_into().map_err(unreadable),
            None => Err(Error::config("preset", format!("`{name}` is not one of {}", PRESETS.join(", ")))),
        }
    }
}

/// The settings of a preset, by section.
fn settings(presets: &Table, name: &str) -> Option<Table> {
    let mut own = presets.get(name)?.as_table()?.clone();
    let mut whole = if let Some(base) = own.remove("base") { settings(presets, base.as_str()?)? } else { Table::new() };
    for (section, values) in own {
        let section = whole.entry(section).or_insert_with(|| Table::new().into());
        section.as_table_mut()?.extend(values.as_table()?.clone());
    }
    Some(whole)
}

//! Where a run's settings start from: the files in `presets/`, each a whole `config.toml`.

use super::config::RunConfig;
use super::estimate::Estimate;
use crate::{Error, Result};

/// Name and text of each file in `presets/`, by name.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/presets.rs"));

/// The names that [`RunConfig::preset`] takes, that of the smallest model first.
///
/// # Errors
/// Those of [`RunConfig::preset`].
pub fn names() -> Result<Vec<&'static str>> {
    let mut sized = FILES
        .iter()
        .map(|&(name, text)| Ok((Estimate::parameters_of(&read(name, text)?.model), name)))
        .collect::<Result<Vec<_>>>()?;
    sized.sort_unstable();
    Ok(sized.into_iter().map(|(_, name)| name).collect())
}

fn read(name: &str, text: &str) -> Result<RunConfig> {
    toml::from_str(text).map_err(|e| Error::file(format!("presets/{name}.toml"), e.to_string()))
}

impl RunConfig {
    /// A preset by name. `docs/settings.md` shows all of them in full.
    ///
    /// # Errors
    /// [`Error::Config`] for another name, [`Error::File`] if the preset's file is wrong.
    pub fn preset(name: &str) -> Result<Self> {
        match FILES.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => read(name, text),
            None => Err(Error::config("preset", format!("`{name}` is not one of {}", names()?.join(", ")))),
        }
    }
}

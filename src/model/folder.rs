//! A model as a folder: `config.json` (or the published `beeg_config.json`) next to
//! `model.safetensors`.

use std::path::Path;

use super::{ConfigFile, MODEL_SETTINGS, Model, ModelConfig, Parameters, WeightFormat};
use crate::device::Device;
use crate::files::{SafetensorsFile, read_unmarked, save_tensors, write_atomic};
use crate::settings::suggestion;
use crate::{Error, Result};

impl Model {
    /// Reads a model folder. Configuration fields that are not known are logged as warnings.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::File`] naming the file that is missing, damaged, or does not fit
    /// the other.
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        let names = ["config.json", "beeg_config.json"];
        let path = names.iter().map(|n| folder.join(n)).find(|p| p.exists()).unwrap_or_else(|| folder.join(names[0]));
        let config = parse_config(&path, &read_unmarked(&path)?)?;
        let weights = folder.join("model.safetensors");
        let parameters = Parameters::load(&config, &SafetensorsFile::open(&weights)?, WeightFormat::Dense, device)
            .map_err(|error| error.in_file(&weights, ""))?;
        Ok(Self { config, parameters, device: device.clone() })
    }

    /// Writes the model into an existing folder, each file whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn save(&self, folder: &Path) -> Result<()> {
        save_tensors(folder.join("model.safetensors"), &self.parameters.to_host()?, None)?;
        let path = folder.join("config.json");
        let text = serde_json::to_string_pretty(&self.config).map_err(|e| Error::file(&path, e.to_string()))?;
        write_atomic(&path, |out| writeln!(out, "{text}").map_err(|e| Error::io(&path, e)))
    }
}

/// Reads the text of a configuration file; `path` is for messages. Unknown fields are logged as
/// warnings.
///
/// # Errors
/// [`Error::File`] if the files do not fit together.
pub fn parse_config(path: &Path, bytes: &[u8]) -> Result<ModelConfig> {
    let file: ConfigFile = serde_json::from_slice(bytes).map_err(|e| Error::file(path, e.to_string()))?;
    let (config, unknown) = file.into_config().map_err(|e| Error::file(path, e.to_string()))?;
    if !unknown.is_empty() {
        let known = || MODEL_SETTINGS.iter().map(|setting| setting.name);
        let meant = |name: &String| match suggestion(name, known()) {
            Some(ours) => format!("{name} (is `{ours}` meant?)"),
            None => name.clone(),
        };
        let unknown: Vec<String> = unknown.iter().map(meant).collect();
        tracing::warn!("{}: fields not known and ignored: {}", path.display(), unknown.join(", "));
    }
    if config.afrac.is_some() && config.afrac_loctypes.0.contains(char::is_whitespace) {
        let sites = &config.afrac_loctypes.0;
        tracing::warn!(
            "{}: afrac_loctypes is \"{sites}\"; blanks are passed over, but the published code knows no site that begins with one",
            path.display()
        );
    }
    config.validate().map_err(|e| Error::file(path, e.to_string()))?;
    Ok(config)
}

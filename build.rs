//! Embeds the tasks and the presets: adding a file to `tasks/` or `presets/` adds one.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    embed("tasks")?;
    embed("presets")
}

/// Writes `FOLDER.rs`: name and text of each TOML file in the folder, by name.
fn embed(folder: &str) -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed={folder}");
    let mut files: Vec<_> = fs::read_dir(Path::new(&env::var("CARGO_MANIFEST_DIR")?).join(folder))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    // Texts and no paths: a checkout may be moved together with what was built in it.
    let row = |path: &PathBuf| -> Result<String, Box<dyn std::error::Error>> {
        Ok(format!("({:?}, {:?}),\n", path.file_stem().unwrap_or_default(), fs::read_to_string(path)?))
    };
    let rows = files.iter().map(row).collect::<Result<String, _>>()?;
    fs::write(Path::new(&env::var("OUT_DIR")?).join(format!("{folder}.rs")), format!("&[\n{rows}]"))?;
    Ok(())
}

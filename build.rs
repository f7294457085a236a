//! Embeds the tasks: adding a file to `tasks/` adds a task.

use std::path::Path;
use std::{env, fs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=tasks");
    println!("cargo:rerun-if-changed=build.rs");
    let mut files: Vec<_> = fs::read_dir(Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("tasks"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let row = |path: &Path| format!("({:?}, include_str!({path:?})),\n", path.file_stem().unwrap_or_default());
    let rows: String = files.iter().map(|path| row(path)).collect();
    fs::write(Path::new(&env::var("OUT_DIR")?).join("tasks.rs"), format!("&[\n{rows}]"))?;
    Ok(())
}

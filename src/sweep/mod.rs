//! Runs one command with many settings: the jobs of a sweep, their split among the processes of an
//! array job, and their results.
//!
//! A sweep is a TOML file:
//!
//! ```toml
//! command = ["train", "--set", "lr={lr}", "--seed", "{seed}", "--out", "{out}"]
//! folder = "runs/rates"
//!
//! [product]            # every combination of these
//! lr = [0.01, 0.02]
//! seed = [0, 1, 2]
//!
//! [[list]]             # and these
//! lr = 0.1
//! seed = 0
//! ```
//!
//! The name of a job consists of its values. The command writes into `{out}`, a folder of that name
//! in `folder`. Its output, and whether it is done, are in `folder/jobs`. In the command, `{{` and
//! `}}` are braces.

mod collect;
mod job;
mod program;
mod results;
mod run;
mod shard;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use toml::Value;

pub use collect::{Collected, circuits, collect, collect_into_files};
pub use job::JobOutcome;
pub use results::Results;
pub use run::SweepResult;
pub use shard::Shard;

use crate::files::{hex, read_text};
use crate::{Error, Result};

/// More jobs are an error.
const MAX_JOBS: usize = 100_000;
/// Longer names of folders are cut.
const NAME_LENGTH: usize = 120;

/// The jobs of a sweep.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// The folder for all results.
    pub folder: PathBuf,
    /// The jobs, in an order that depends only on the file.
    pub jobs: Vec<Job>,
}

/// One command line.
#[derive(Clone, Debug)]
pub struct Job {
    /// The values, as a file name.
    pub name: String,
    /// The folder that the command writes.
    pub out: PathBuf,
    /// The folder of its log and its state.
    jobs: PathBuf,
    /// The values of this job, by name.
    pub values: BTreeMap<String, String>,
    /// Program and arguments.
    pub command: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    command: Vec<String>,
    folder: PathBuf,
    #[serde(default)]
    product: BTreeMap<String, Vec<Value>>,
    #[serde(default)]
    list: Vec<BTreeMap<String, Value>>,
}

impl Sweep {
    /// Reads the file of a sweep.
    ///
    /// # Errors
    /// Returns [`Error::Io`], and [`Error::File`] if it is no sweep, for a value that the command
    /// does not use, a placeholder without a value, no jobs at all, and two jobs of one name.
    pub fn load(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        let file: File = toml::from_str(&text).map_err(|e| Error::file(path, e.to_string()))?;
        Self::new(file).map_err(|message| Error::file(path, message))
    }

    fn new(file: File) -> std::result::Result<Self, String> {
        let mut all: Vec<BTreeMap<String, String>> = Vec::new();
        if !file.product.is_empty() {
            let count = file.product.values().fold(1, |count: usize, values| count.saturating_mul(values.len()));
            if count > MAX_JOBS {
                return Err(format!("`product` makes {count} jobs (at most {MAX_JOBS})"));
            }
            all.push(BTreeMap::new());
            for (name, values) in &file.product {
                let texts = values.iter().map(|value| text(name, value)).collect::<Result<Vec<_>, _>>()?;
                let with = |job: &BTreeMap<_, _>, text: &String| {
                    let mut job = job.clone();
                    job.insert(name.clone(), text.clone());
                    job
                };
                all = all.iter().flat_map(|job| texts.iter().map(move |text| with(job, text))).collect();
            }
        }
        for job in &file.list {
            if job.is_empty() {
                return Err("an item of `[[list]]` is empty: give it values, or remove it".into());
            }
            all.push(
                job.iter()
                    .map(|(name, value)| Ok((name.clone(), text(name, value)?)))
                    .collect::<Result<_, String>>()?,
            );
        }
        if all.is_empty() {
            return Err("makes no job: give values to try as `[product]` or `[[list]]`".into());
        }
        if all.iter().any(|values| values.contains_key("out")) {
            return Err("a value cannot be called out: {out} is the job's folder".into());
        }
        let jobs = all.into_iter().map(|values| Job::new(&file, values)).collect::<Result<Vec<_>, _>>()?;
        let mut names = BTreeSet::new();
        match jobs.iter().find(|job| !names.insert(&job.name)) {
            Some(twice) => Err(format!("two jobs would be called {}", twice.name)),
            None => Ok(Self { folder: file.folder, jobs }),
        }
    }
}

impl Job {
    fn new(file: &File, values: BTreeMap<String, String>) -> std::result::Result<Self, String> {
        let (name, jobs) = (name(&values), file.folder.join("jobs"));
        let out = file.folder.join(&name);
        let out_text = out.to_str().ok_or("`folder` is not UTF-8")?;
        let mut unused: BTreeSet<_> = values.keys().map(String::as_str).collect();
        let mut command = Vec::with_capacity(file.command.len());
        for argument in &file.command {
            let value = |name: &str| {
                unused.remove(name);
                if name == "out" { Some(out_text) } else { values.get(name).map(String::as_str) }
            };
            command.push(fill(argument, value)?);
        }
        // The results of a training run are read from there.
        if program::train(&command).is_some()
            && !file.command.iter().any(|word| word == "{out}" || word == "--out={out}")
        {
            return Err("`train` must write into the job's folder: give the command \"--out\", \"{out}\"".into());
        }
        match (unused.first(), command.is_empty()) {
            (Some(name), _) => Err(format!("the command does not use {name}: write {{{name}}} where it goes")),
            (None, true) => Err("`command` is empty".into()),
            (None, false) => Ok(Self { name, out, jobs, values, command }),
        }
    }

    /// A file about it: `jobs/NAME.KIND` in the folder of the sweep.
    pub fn file(&self, kind: &str) -> PathBuf {
        self.jobs.join(format!("{}.{kind}", self.name))
    }
}

/// A value on the command line.
fn text(name: &str, value: &Value) -> std::result::Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Ok(value.to_string()),
        _ => Err(format!("{name}: expected a text, a number, true or false instead of {value}")),
    }
}

/// `argument` with every `{NAME}` replaced by its value, and every doubled brace by a single one.
fn fill<'a>(argument: &str, mut value: impl FnMut(&str) -> Option<&'a str>) -> std::result::Result<String, String> {
    let (mut filled, mut remaining) = (String::new(), argument);
    while let Some((before, brace)) = remaining.find(['{', '}']).map(|at| remaining.split_at(at)) {
        filled += before;
        let (brace, after) = brace.split_at(1);
        if let Some(after) = after.strip_prefix(brace) {
            filled += brace;
            remaining = after;
            continue;
        }
        let name = (brace == "{").then(|| after.split_once('}')).flatten();
        let (name, after) =
            name.ok_or_else(|| format!("`{argument}`: an unmatched brace; {{{{ and }}}} stand for braces"))?;
        filled += value(name).ok_or_else(|| format!("`{argument}`: no value is called {name} in every job"))?;
        remaining = after;
    }
    Ok(filled + remaining)
}

/// The name of a job with these values.
fn name(values: &BTreeMap<String, String>) -> String {
    let whole = values.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",");
    let harmless = |c: char| c.is_ascii_alphanumeric() || "=,.+-_".contains(c);
    let clean: String = whole.chars().map(|c| if harmless(c) { c } else { '_' }).collect();
    if clean == whole && clean.len() <= NAME_LENGTH {
        return clean;
    }
    let start: String = clean.chars().take(NAME_LENGTH).collect();
    format!("{start}-{}", hex(&Sha256::digest(whole.as_bytes())[..4]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep(text: &str) -> std::result::Result<Sweep, String> {
        Sweep::new(toml::from_str(text).map_err(|e| e.to_string())?)
    }

    #[test]
    fn products_and_lists_fill_the_command() {
        let sweep = sweep(
            "command = ['train', '--set', 'lr={lr}', '--seed={seed}', '--out', '{out}']\nfolder = 'runs/a'\n\
             [product]\nseed = [3, 4]\nlr = [0.1, 1e-3]\n[[list]]\nlr = 1\nseed = 'x/y'",
        )
        .unwrap();
        let commands: Vec<_> = sweep.jobs.iter().map(|job| job.command[2..4].join(" ")).collect();
        let want = ["lr=0.1 --seed=3", "lr=0.1 --seed=4", "lr=0.001 --seed=3", "lr=0.001 --seed=4", "lr=1 --seed=x/y"];
        assert_eq!(commands, want);
        assert_eq!(sweep.jobs[1].out, Path::new("runs/a/lr=0.1,seed=4"));
        assert_eq!(sweep.jobs[1].file("log"), Path::new("runs/a/jobs/lr=0.1,seed=4.log"));
        assert_eq!(sweep.jobs[1].command[5], "runs/a/lr=0.1,seed=4");
        let cleaned = &sweep.jobs[4].name;
        assert!(cleaned.starts_with("lr=1,seed=x_y-") && cleaned.len() == "lr=1,seed=x_y-".len() + 8, "{cleaned}");
    }

    #[test]
    fn doubled_braces_are_braces() {
        let text = "command = ['echo', '{{\"lr\": {lr}}}', '{{{lr}}}']\nfolder = 'a'\n[product]\nlr = [1]";
        assert_eq!(sweep(text).unwrap().jobs[0].command[1..], ["{\"lr\": 1}", "{1}"]);
    }

    #[test]
    fn inconsistent_sweeps_are_errors() {
        for (text, culprit) in [
            ("command = ['train']\nfolder = 'a'", "no job"),
            ("command = ['echo']\nfolder = 'a'\n[product]\nlr = [1]", "does not use lr"),
            ("command = ['train', '{lr}{x}']\nfolder = 'a'\n[product]\nlr = [1]", "called x"),
            ("command = ['echo', '{lr}']\nfolder = 'a'\n[product]\nlr = [1, 1]", "two jobs"),
            ("command = ['echo', '{lr}']\nfolder = 'a'\n[product]\nlr = [[1]]", "expected a text"),
            ("command = ['echo', '{lr}']\nfolder = 'a'\nproducts = 1", "products"),
            ("command = ['echo', '{lr}']\nfolder = 'a'\n[product]\nlr = [1]\n[[list]]", "is empty"),
            ("command = ['echo', '{out}']\nfolder = 'a'\n[product]\nout = [1]", "called out"),
            ("command = ['echo', '{lr}}']\nfolder = 'a'\n[product]\nlr = [1]", "unmatched"),
            ("command = ['echo', '{lr']\nfolder = 'a'\n[product]\nlr = [1]", "unmatched"),
            ("command = ['mpirun', 'train', '{lr}']\nfolder = 'a'\n[product]\nlr = [1]", "{out}"),
        ] {
            let message = sweep(text).unwrap_err();
            assert!(message.contains(culprit), "{message}");
        }
    }
}

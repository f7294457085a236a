//! What a model that has just been trained can do, and what to try next.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::Error;
use crate::circuits::pipeline::{SearchObserver, SearchRequest, TaskOutcome, search_circuits};
use crate::circuits::prune::{SOLVED, SearchSettings};
use crate::circuits::search::SearchPlan;
use crate::circuits::tasks::{self, Split};
use crate::circuits::{Circuit, EdgeEntry, score};
use crate::error::explain;
use crate::model::Model;
use crate::terminal::{Progress, signals};
use crate::text::source::Source;
use crate::text::tokenizer::Tokenizer;

/// Held-out pairs of each task.
const PAIRS: usize = 64;
/// The task whose circuit is looked for.
const QUOTES: &str = "single_double_quote";
/// How many of a circuit's edges are shown.
const EDGES: usize = 6;
/// How long it is looked for.
const PATIENCE: Duration = Duration::from_secs(30);

/// The built-in tasks that the model does, [`PAIRS`] held-out pairs each.
pub(super) fn solved(model: &Model, tokenizer: &Tokenizer) -> Result<Vec<String>> {
    let mut solved = Vec::new();
    for task in tasks::all()? {
        // A tokenizer may be unable to write a task's answers.
        let Ok(task) = task.for_tokenizer(tokenizer) else { continue };
        match score(model, tokenizer, &task, Split::Test, 0, PAIRS) {
            Ok(score) if score.accuracy >= SOLVED => solved.push(task.name),
            _ => {}
        }
    }
    Ok(solved)
}

/// The circuit that closes a string as it was opened, by a quick search; it is left in `folder`.
///
/// # Errors
/// [`Error::Stopped`] if it is not found within [`PATIENCE`]; those of the search.
pub(super) fn quote_circuit(
    model: &Model,
    tokenizer: &Tokenizer,
    folder: &Path,
    model_path: &Path,
) -> crate::Result<(PathBuf, Circuit)> {
    let settings =
        SearchSettings { steps: 100, pairs: 24, eval_pairs: 24, lr: 0.02, local_search_max: 0, ..Default::default() };
    let request = SearchRequest {
        tasks: vec![tasks::find(QUOTES)?],
        plan: SearchPlan { settings, ..SearchPlan::default() },
        disjoint: 1,
        exclude: Vec::new(),
        data: Source::default(),
        mean_tokens: 8_192,
        folder: folder.to_path_buf(),
        model_path: model_path.display().to_string(),
        skip_finished: false,
    };
    let observer = SearchObserver { stop: stop_after(PATIENCE), on_event: &|_| () };
    let outcomes = search_circuits(model, tokenizer, &request, &observer);
    // Its end stops the timer.
    observer.stop.store(true, Ordering::Relaxed);
    let files = match outcomes?.pop() {
        Some(TaskOutcome::Circuits(files)) => files,
        Some(TaskOutcome::None(error) | TaskOutcome::Failed(error)) => return Err(error),
        None => Vec::new(),
    };
    let file = files.into_iter().next().ok_or(Error::Stopped)?;
    let circuit = Circuit::load(&file)?;
    Ok((file, circuit))
}

/// A flag that is set after some time, or when the program is to stop.
fn stop_after(time: Duration) -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let (flag, start) = (stop.clone(), Instant::now());
    // Without a thread there is no search.
    let started = thread::Builder::new().spawn(move || {
        while !flag.load(Ordering::Relaxed) && !signals::stop().load(Ordering::Relaxed) && start.elapsed() < time {
            thread::sleep(Duration::from_millis(50));
        }
        flag.store(true, Ordering::Relaxed);
    });
    if started.is_err() {
        stop.store(true, Ordering::Relaxed);
    }
    stop
}

/// Prints what the model of `run` can do, with the circuit of one task.
pub(super) fn demonstrate(
    (model, tokenizer): (&Model, &Tokenizer),
    run: &Path,
    checkpoint: &Path,
    progress: &Progress,
    print: &dyn Fn(String),
) -> Result<Option<PathBuf>> {
    progress.stage("trying the tasks");
    let solved = solved(model, tokenizer)?;
    let all = tasks::names().count();
    print(format!("\ntasks       {} of {all} done, at least 9 of 10 times: {}", solved.len(), list(&solved)));
    if !solved.iter().any(|name| name == QUOTES) {
        return Ok(None);
    }
    progress.stage("looking for a circuit");
    match quote_circuit(model, tokenizer, &run.join("circuits"), checkpoint) {
        Ok((file, circuit)) => {
            print(brief(&file, &circuit));
            return Ok(Some(file));
        }
        Err(Error::Stopped) => {
            print(format!("circuit     of {QUOTES}: not found in {} seconds", PATIENCE.as_secs()));
        }
        Err(error) => print(format!("circuit     of {QUOTES}: {}", explain(&error))),
    }
    Ok(None)
}

/// A circuit in a few lines: its size, its losses, and the edges that matter most.
fn brief(file: &Path, circuit: &Circuit) -> String {
    let (counts, test) = (&circuit.counts, &circuit.losses.test);
    let mut text = format!(
        "circuit     {} nodes and {} edges close a string as it was opened: loss {:.3} (the whole model {:.3}, the \
         model without them {:.3})\n            its strongest edges, each with its weight and what cutting it adds to \
         the loss:",
        counts.nodes, counts.edges, test.circuit, test.model, test.ablated
    );
    let mut edges: Vec<_> = circuit.edges.iter().collect();
    edges.sort_by(|a, b| b.effect.abs().total_cmp(&a.effect.abs()));
    for EdgeEntry { from, to, weight, effect } in edges.into_iter().take(EDGES) {
        text += &format!("\n            {from} --({weight:+.3}, {effect:+.3})--> {to}");
    }
    text + &format!("\n            all of it: {} circuit show {}", program("gossamer"), file.display())
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// How to call one of our programs from here: by its name if it is on the path, else as the file
/// next to this program. Cargo leaves only the program that it was asked for; that one can be both.
pub(super) fn program(name: &str) -> String {
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    let Ok(own) = std::env::current_exe() else { return name.into() };
    let Some(folder) = own.parent() else { return name.into() };
    let on_path = std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|at| at == folder));
    let sibling = folder.join(file);
    if on_path {
        return name.into();
    }
    // Only where cargo builds.
    let built = std::env::var_os("CARGO_MANIFEST_DIR").is_some();
    let is_there = sibling.exists() || (built && std::fs::hard_link(&own, &sibling).is_ok());
    if !is_there {
        return name.into();
    }
    let here = std::env::current_dir().unwrap_or_default();
    let path = sibling.strip_prefix(&here).unwrap_or(&sibling).display().to_string();
    if path.contains(' ') { format!("'{path}'") } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circuit_in_brief_begins_with_its_strongest_edge() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/circuit-example.json");
        let circuit = Circuit::load(&file).unwrap();
        let text = brief(&file, &circuit);
        let edges: Vec<&str> = text.lines().filter(|line| line.contains(")--> ")).collect();
        assert_eq!(edges.len(), EDGES);
        let strongest = circuit.edges.iter().map(|edge| edge.effect).fold(0.0, f64::max);
        assert!(edges[0].contains(&format!(", {strongest:+.3})-->")), "{text}");
        assert!(text.contains("13 nodes and 9 edges") && text.contains("loss 0.139"), "{text}");
    }

    #[test]
    fn the_flag_is_set_in_time() {
        let stop = stop_after(Duration::from_millis(100));
        assert!(!stop.load(Ordering::Relaxed));
        thread::sleep(Duration::from_millis(400));
        assert!(stop.load(Ordering::Relaxed));
    }
}

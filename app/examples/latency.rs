//! How long an edit takes from the request to the answer, as the window makes them: `cargo run
//! --release -p gossamer-explorer --example latency -- CIRCUIT`. Without bridges next to the
//! circuit's model only prompts are timed.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use gossamer::bridges::ModelName;
use gossamer::circuits::{Circuit, Node, NodeKind};
use gossamer_explorer::jobs::{Job, Request};
use gossamer_explorer::live::ask::{self, Question};
use gossamer_explorer::live::choices::{Becomes, LiveChoices, Setting, Steer};
use gossamer_explorer::live::model::Opened;
use gossamer_explorer::live::steer;

/// Edits that are timed.
const EDITS: usize = 60;

fn main() -> anyhow::Result<()> {
    let path = std::env::args_os().nth(1).map(PathBuf::from);
    let path = path.ok_or_else(|| anyhow::anyhow!("name a circuit file in its model's run"))?;
    let circuit = Circuit::load(&path)?;
    let opened = Arc::new(Opened::find(Some(&path), &circuit, None, None)?);
    let config = &opened.model.config;
    let device = opened.model.device.describe();
    println!(
        "{} layers, width {}, {device}: medians (and most) until an answer, and all of it, is there",
        config.n_layer, config.d_model
    );
    let prompt = circuit.task.clean.clone();

    let (answered, wakes) = channel();
    let shared = opened.clone();
    let mut request = Request::new(Job::serve(
        move || answered.send(()).unwrap_or_default(),
        move |inbox| ask::serve(&shared, inbox),
    ));
    let question = |channel: usize| {
        let mut choices = LiveChoices::default();
        let node = Node { layer: Some(0), kind: NodeKind::MlpNeuron, index: channel };
        choices.settings.insert(node, Setting { becomes: Becomes::Mean, at: None });
        Question { prompt: prompt.clone(), edits: choices.edits(), at: None, head: Some((0, 0)) }
    };
    report("an ablation, in the model, the circuit and its complement", &mut request, &wakes, &|i| {
        question(i % config.mlp_width())
    })?;

    let (answered, wakes) = channel();
    let (shared, sparse) = (opened.clone(), ModelName { path: String::new(), hash: String::new() });
    let mut request = Request::new(Job::serve(
        move || answered.send(()).unwrap_or_default(),
        move |inbox| steer::serve(&shared, inbox),
    ));
    let recipe = |channel: usize, strength: f64| {
        let channel = Some(format!("0.attn.act_in[{channel}]"));
        let counterfactual = Some(circuit.task.counterfactual.clone());
        let steer = Steer { channel, counterfactual, strength, ..Steer::default() };
        steer.recipe(&prompt, &sparse).unwrap_or_else(|e| unreachable!("{e}"))
    };
    let drag = |i: usize| recipe(0, i as f64 / EDITS as f64);
    report("the strength dragged, with 8 random draws", &mut request, &wakes, &drag)?;
    let node = |i: usize| recipe(i % config.d_model, 1.0);
    report("another channel", &mut request, &wakes, &node)
}

/// The median and the longest time until an answer is there, and until all of it is. Leaves out the
/// first request, which opens things.
fn report<Q, A>(
    what: &str,
    request: &mut Request<Q, A>,
    wakes: &Receiver<()>,
    nth: &dyn Fn(usize) -> Q,
) -> anyhow::Result<()>
where
    Q: Clone + PartialEq + Send + 'static,
    A: Send + 'static,
{
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for i in 0..=EDITS {
        let start = Instant::now();
        request.send(nth(i));
        let mut times = Vec::new();
        while request.pending() {
            wakes.recv()?;
            // An earlier poll may have received the answer already.
            if request.poll() {
                anyhow::ensure!(request.error.is_none(), "{}", request.error.as_deref().unwrap_or_default());
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
        first.extend(times.first().filter(|_| i > 0));
        last.extend(times.last().filter(|_| i > 0));
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        format!("{:6.1} ({:.1})", times[times.len() / 2], times[times.len() - 1])
    };
    println!("{:>16} {:>16} ms  {what}", median(&mut first), median(&mut last));
    Ok(())
}

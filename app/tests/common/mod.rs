//! Windows, and a run small enough to be trained in a test.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use eframe::egui::{Key, Modifiers, Theme};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;
use gossamer::circuits::prune::SearchSettings;
use gossamer::circuits::search::{CircuitSearch, SearchResult};
use gossamer::circuits::{Layout, Nodes, tasks, text_means};
use gossamer::device::Device;
use gossamer::formats::ModelFiles;
use gossamer::model::WeightFormat;
use gossamer::observer::Observer;
use gossamer::text::source::Source;
use gossamer::text::tokenizer::Tokenizer;
use gossamer::train::run::Run;
use gossamer_explorer::explorer::Explorer;
use gossamer_explorer::runs;

/// SearchSettings of a run that takes a moment, as they are written into the window.
pub const TINY: &str = "n_layer=1 d_model=16 n_head=2 generated_documents=300 eval_sequences=4 batch_size=8 log_every=1 \
    device=cpu checkpoint_every=2 eval_every=2 steps=6";

pub type Window = Harness<'static, Explorer>;

/// A window with the file at `path`, which it is still opening, or else the example.
pub fn window(path: Option<&Path>) -> Window {
    let path = path.map(Path::to_path_buf);
    let builder = Harness::builder().with_size([1280.0, 720.0]).with_max_steps(40);
    let mut harness = builder.build_eframe(move |context| Explorer::new(&context.egui_ctx, None, path.as_deref()));
    harness.step();
    harness
}

/// A window with the open file at `path`.
pub fn open(path: &Path) -> Window {
    let mut harness = window(Some(path));
    wait(&mut harness, "document", |harness| harness.state().view().is_some());
    harness.run();
    harness
}

/// A window of a size that is rendered, with the file at `path` or the example.
pub fn rendered(size: [f32; 2], path: Option<&Path>) -> Window {
    let path = path.map(Path::to_path_buf);
    let builder = Harness::builder().with_size(size).with_max_steps(40).with_theme(Theme::Light).wgpu();
    let mut harness = builder.build_eframe(move |context| Explorer::new(&context.egui_ctx, None, path.as_deref()));
    wait(&mut harness, "document", |harness| harness.state().view().is_some());
    harness.run();
    harness
}

/// Steps until something is there: documents are opened and models run in other threads.
pub fn wait(harness: &mut Window, what: &str, until: impl Fn(&Window) -> bool) {
    let start = Instant::now();
    while !until(harness) {
        assert!(start.elapsed() < Duration::from_secs(100), "no {what}");
        std::thread::sleep(Duration::from_millis(20));
        harness.step();
    }
}

/// Waits for a label that contains a text.
pub fn wait_for(harness: &mut Window, text: &str) {
    wait(harness, text, |harness| harness.query_all_by_label_contains(text).next().is_some());
}

pub fn click(harness: &mut Window, label: &str) {
    harness.get_by_label(label).click();
    harness.step();
    harness.step();
}

/// Replaces what is written in a field.
pub fn write(harness: &mut Window, field: &str, text: &str) {
    harness.get_by_label(field).focus();
    harness.step();
    harness.key_press_modifiers(Modifiers::COMMAND, Key::A);
    harness.step();
    harness.key_press(Key::Delete);
    harness.step();
    harness.get_by_label(field).type_text(text);
    harness.step();
}

pub fn press(harness: &mut Window, modifiers: Modifiers, key: Key) {
    harness.key_press_modifiers(modifiers, key);
    harness.run();
}

/// Calls `poll` until it returns true.
pub fn poll_until(mut poll: impl FnMut() -> bool) {
    let start = Instant::now();
    while !poll() {
        assert!(start.elapsed() < Duration::from_secs(100), "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A run of six steps with three checkpoints.
pub fn train(folder: &Path) -> PathBuf {
    let run = folder.join("run");
    let config = runs::settings("quickstart", TINY).unwrap();
    let run_ = Run {
        config,
        folder: run.clone(),
        cache: folder.join("cache"),
        device: Device::cpu(),
        observer: Observer::default(),
        communicator: gossamer::train::communicator::Communicator::single(),
    };
    assert!(run_.execute(false, &mut |_| ()).unwrap().finished);
    run
}

/// A circuit of a few of the run's nodes, whatever it is good for, in the run's folder.
pub fn circuit(run: &Path) -> PathBuf {
    let files = ModelFiles::open(run).unwrap();
    let model = files.load(WeightFormat::Dense, &Device::cpu()).unwrap();
    let tokenizer = Tokenizer::load(run.join("tokenizer.json")).unwrap();
    let layout = Layout::new(&model.config);
    let mut keep = vec![false; layout.len()];
    for kind in ["attn.act_in", "attn.v", "attn.resid_delta", "mlp.act_in", "mlp.post_act", "mlp.resid_delta"] {
        for index in 0..4 {
            keep[layout.number(format!("0.{kind}[{index}]").parse().unwrap()).unwrap()] = true;
        }
    }
    let folder = run.join("circuits");
    std::fs::create_dir_all(&folder).unwrap();
    let means = text_means(
        &model,
        &tokenizer,
        &Source::default(),
        512,
        &folder.join("means.safetensors"),
        &Observer::default(),
    )
    .unwrap();
    let nodes = Nodes::new(layout, &means, &model.device).unwrap();
    let search = CircuitSearch { model: &model, nodes, tokenizer: &tokenizer };
    let settings = SearchSettings { eval_pairs: 4, ..SearchSettings::default() };
    let found = SearchResult { settings, scores: vec![0.0; keep.len()], keep, ..SearchResult::default() };
    let task = tasks::find("single_double_quote").unwrap();
    let hash = model.hash().unwrap();
    let circuit = search.describe(&task, &found, &run.display().to_string(), &hash).unwrap();
    let path = folder.join("single_double_quote.json");
    circuit.save(&path).unwrap();
    path
}

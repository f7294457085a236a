//! Prompts, nodes set by hand, and bridges, on tiny models: what the window shows is what the
//! library says.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use common::{Window, open, rendered, wait, window};
use eframe::egui::accesskit::Role;
use eframe::egui::{Key, Modifiers, OutputCommand};
use egui_kittest::SnapshotOptions;
use egui_kittest::kittest::{NodeT, Queryable, by};
use gossamer::bridges::{BridgeFile, Bridges, ModelName, Ratio, Recipe, Steering};
use gossamer::circuits::labels::{token, visible};
use gossamer::circuits::{Circuit, Counts, ModelRef, NodeEntry, Probe, Response, TokenRef, mean_activations};
use gossamer::device::Device;
use gossamer::files::{HostTensor, load_tensors, save_tensors};
use gossamer::model::{Edit, Model, ModelConfig, Parameters, Sampling, Site, SiteKind, ranked};
use gossamer::observer::Observer;
use gossamer::text::python;
use gossamer::text::sequences::sequences;
use gossamer::text::tokenizer::Tokenizer;
use gossamer::train::bridge::EncoderKind;
use gossamer_explorer::document::Document;
use gossamer_explorer::item::Item;

/// The nodes of the circuit; the first reads the residual stream, the second belongs to a head.
const NODES: [&str; 4] = ["0.attn.act_in[3]", "0.attn.v[9]", "0.attn.resid_delta[5]", "1.mlp.post_act[11]"];

/// A run with a tiny model, a circuit of it and, next to the model, bridges to a dense one.
struct Run {
    _folder: tempfile::TempDir,
    path: PathBuf,
    model: Model,
    dense: Model,
    bridges: Bridges,
    tokenizer: Tokenizer,
    circuit: Circuit,
    means: BTreeMap<Site, Vec<f32>>,
}

fn model(seed: u64, d_model: usize) -> Model {
    let config = ModelConfig {
        block_size: 96,
        vocab_size: 300,
        n_layer: 2,
        n_head: 2,
        d_model,
        rms_norm: true,
        sink: true,
        ..ModelConfig::default()
    };
    let fresh = Model::new(config.clone(), seed, &Device::cpu()).unwrap();
    let mut numbers = fresh.parameters.to_host().unwrap();
    // So that something depends on something: fresh models say much the same to everything.
    for (name, tensor) in numbers.iter_mut().filter(|(_, tensor)| tensor.shape.len() == 2) {
        let factor = if name.contains("wte") || name.contains("lm_head") { 60.0 } else { 12.0 };
        tensor.data.iter_mut().for_each(|w| *w *= factor);
    }
    let parameters = Parameters::from_host(&config, numbers, &Device::cpu()).unwrap();
    Model { config, parameters, device: Device::cpu() }
}

impl Run {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let tokenizer = Tokenizer::train(python::documents(3).take(60), 300, &Observer::default()).unwrap();
        let (model, dense) = (model(1, 16), model(2, 12));
        for (model, name) in [(&model, "run"), (&dense, "dense")] {
            let folder = folder.path().join(name);
            fs::create_dir(&folder).unwrap();
            model.save(&folder).unwrap();
            tokenizer.save(folder.join("tokenizer.json")).unwrap();
        }
        let hash = model.hash().unwrap();
        let mut maps = Bridges::new(&dense.config, &model.config, EncoderKind::AbsTopK, 0.5, 7, &Device::cpu())
            .unwrap()
            .to_host()
            .unwrap();
        maps.values_mut().for_each(|map| map.data.iter_mut().for_each(|w| *w *= 20.0));
        let bridges =
            Bridges::from_host(&dense.config, &model.config, EncoderKind::AbsTopK, 0.5, &maps, &Device::cpu()).unwrap();
        let about = BridgeFile {
            version: 1,
            dense: ModelName { path: "../dense".into(), hash: dense.hash().unwrap() },
            sparse: ModelName { path: ".".into(), hash: hash.clone() },
            encoder: EncoderKind::AbsTopK,
            encoder_afrac: 0.5,
        };
        about.save(&path, &bridges).unwrap();

        let circuits = path.join("circuits");
        fs::create_dir(&circuits).unwrap();
        let text = sequences(python::documents(0).map(Ok), &tokenizer, 96, 960).unwrap();
        let means = mean_activations(&model, &text, &Observer::default()).unwrap();
        let tensor = |mean: &Vec<f32>| HostTensor { shape: vec![mean.len()], data: mean.clone() };
        let tensors = means.iter().map(|(site, mean)| (site.to_string(), tensor(mean))).collect();
        let about = [("model".to_string(), hash.clone())].into();
        save_tensors(circuits.join("means.safetensors"), &tensors, Some(about)).unwrap();

        let mut circuit = Document::example().unwrap().circuit;
        circuit.model = ModelRef::new("somewhere", hash, &model.config);
        let entry = |node: &&str| {
            let mut entry = NodeEntry::new(node.parse().unwrap(), &circuit.model);
            entry.mean = means[&entry.node().site()][entry.index].into();
            entry
        };
        circuit.nodes = NODES.iter().map(entry).collect();
        (circuit.edges, circuit.biases) = (Vec::new(), Vec::new());
        (circuit.embeddings, circuit.unembeddings) = (Vec::new(), Vec::new());
        circuit.counts = Counts::of(2, &circuit.nodes, &[], &[]);
        circuit.task.clean = "x = ['a', 'b".into();
        circuit.task.counterfactual = "x = [\"a\", \"b".into();
        let answer = |text: &str| TokenRef { id: tokenizer.encode(text).unwrap()[0], text: text.into() };
        (circuit.task.target, circuit.task.alternative) = (answer("'"), answer("\""));
        circuit.save(circuits.join("quotes.json")).unwrap();
        Self { _folder: folder, path, model, dense, bridges, tokenizer, circuit, means }
    }

    fn file(&self) -> PathBuf {
        self.path.join("circuits/quotes.json")
    }

    /// What the library says to a prompt.
    fn ask(&self, prompt: &str, edits: &[&str]) -> Response {
        let edits: Vec<Edit> = edits.iter().map(|edit| edit.parse().unwrap()).collect();
        let probe = Probe::new(&self.model, &self.circuit, self.means.clone()).unwrap();
        probe.run(&self.tokenizer.encode(prompt).unwrap(), &edits).unwrap()
    }

    /// What the library says to a recipe, steered and with random channels.
    fn steer(&self, recipe: &Recipe) -> [Vec<f64>; 2] {
        let reference = sequences(python::documents(u64::MAX).map(Ok), &self.tokenizer, 96, 16_384).unwrap();
        let steering = Steering::new(&self.dense, &self.model, &self.bridges, &reference, recipe.ratio).unwrap();
        let change = recipe.change(&steering, &self.tokenizer).unwrap();
        let tokens = self.tokenizer.encode(&recipe.prompt).unwrap();
        let expected = recipe.compare(&steering, &tokens, &change).unwrap();
        [expected.steered, expected.random.unwrap()]
    }
}

fn settle(harness: &mut Window) {
    // The first step sends the request, the others receive answers.
    harness.step();
    harness.step();
    wait(harness, "an answer", |h| h.state().live().is_some_and(|live| !live.pending()));
    harness.run();
}

/// A window with the run's circuit and one of its tabs.
fn open_tab(run: &Run, tab: &str) -> Window {
    let mut harness = open(&run.file());
    click(&mut harness, tab);
    harness
}

fn click(harness: &mut Window, label: &str) {
    harness.get_by_label(label).click();
    settle(harness);
}

fn write(harness: &mut Window, label: &str, text: &str) {
    common::write(harness, label, text);
    settle(harness);
    harness.key_press(Key::Escape);
    settle(harness);
}

/// Types a number into a number field, alone or of a slider.
fn number(harness: &mut Window, label: &str, text: &str) {
    harness.get_by_role_and_label(Role::SpinButton, label).focus();
    harness.step();
    harness.key_press_modifiers(Modifiers::COMMAND, Key::A);
    harness.step();
    harness.get_by_role_and_label(Role::SpinButton, label).type_text(text);
    harness.step();
    harness.key_press(Key::Enter);
    settle(harness);
}

/// A column says these probabilities of the task's answers and of the two most probable tokens, and
/// what they were.
fn cell(harness: &Window, run: &Run, column: &str, p: &[f64], before: Option<&[f64]>) {
    let task = &run.circuit.task;
    for id in ranked(p).into_iter().take(2).chain([task.target.id, task.alternative.id]) {
        let of = |p: &[f64]| p[id as usize];
        let before = before.map(|before| format!(", unedited {:.4}", of(before))).unwrap_or_default();
        let text = token(&run.tokenizer.token_str(id).unwrap());
        harness.get_by_label(&format!("{text}, {column}: {:.4}{before}", of(p)));
    }
}

#[test]
fn a_prompt_is_answered_by_the_model_the_circuit_and_its_complement() {
    let run = Run::new();
    let mut harness = open_tab(&run, "Prompt");
    let check = |harness: &Window, prompt: &str| {
        let want = run.ask(prompt, &[]);
        cell(harness, &run, "whole model", &want.model, None);
        cell(harness, &run, "circuit alone", &want.circuit, None);
        cell(harness, &run, "complement", &want.complement, None);
    };
    check(&harness, "x = ['a', 'b");
    click(&mut harness, "counterfactual prompt");
    check(&harness, "x = [\"a\", \"b");
    write(&mut harness, "prompt", "y = (7");
    check(&harness, "y = (7");
    let tokens = run.tokenizer.encode("y = (7").unwrap();
    assert_eq!(harness.state().live().unwrap().answer().unwrap().tokens.len(), tokens.len());
    // The largest activations of a site, at the last token and at another one.
    let want = run.ask("y = (7", &[]).sites[&SiteKind::AttnIn.at(0)].data.clone();
    for at in [tokens.len() - 1, 0] {
        if at == 0 {
            let first = run.tokenizer.token_str(tokens[0]).unwrap();
            harness.get_by_label(&format!("token 0, {}", token(&first))).click();
            settle(&mut harness);
        }
        let row = &want[at * 16..][..16];
        let largest = (0..16).max_by(|&a, &b| row[a].abs().total_cmp(&row[b].abs())).unwrap();
        harness.get_by_label(&format!("{largest}: {:+.3}", row[largest]));
    }
    // The table is of that token, until another prompt is written.
    let first = run.tokenizer.token_str(tokens[0]).unwrap();
    harness.get_by_label(&format!("after token 0, {}", token(&first)));
    cell(&harness, &run, "circuit alone", &run.ask(&first, &[]).circuit, None);
    click(&mut harness, "clean prompt");
    check(&harness, "x = ['a', 'b");
    harness.get_by_label("up to date");
    for (wrong, why) in [("x ".repeat(200).as_str(), "shorten it"), ("", "write a prompt")] {
        write(&mut harness, "prompt", wrong);
        harness.get_by_label_contains(why);
        harness.get_by_label("the numbers are those of an earlier request");
        assert!(harness.query_by_label("up to date").is_none());
    }
}

#[test]
fn a_prompt_is_continued() {
    let run = Run::new();
    let mut harness = open_tab(&run, "Prompt");
    write(&mut harness, "prompt", "y = (7");
    number(&mut harness, "tokens", "5");
    click(&mut harness, "Continue");
    let prompt = run.tokenizer.encode("y = (7").unwrap();
    let sampling = |max_new_tokens, temperature| Sampling { max_new_tokens, temperature, ..Sampling::default() };
    let text = |sampling| run.tokenizer.decode(&run.model.generate(&prompt, &sampling).unwrap()).unwrap();
    let expected = text(sampling(5, 0.0));
    harness.get_by_label(&visible(&expected));
    number(&mut harness, "temperature", "1");
    click(&mut harness, "Continue");
    let drawn = text(sampling(5, 1.0));
    assert_ne!(drawn, expected, "or else the test shows nothing");
    harness.get_by_label(&visible(&drawn));
    click(&mut harness, "Append it to the prompt");
    let longer = format!("y = (7{drawn}");
    assert_eq!(harness.state().view().unwrap().edits.live.prompt.as_deref(), Some(longer.as_str()));
    cell(&harness, &run, "whole model", &run.ask(&longer, &[]).model, None);
}

#[test]
fn nodes_are_ablated_set_and_reset() {
    let run = Run::new();
    let mut harness = open_tab(&run, "Prompt");
    let prompt = run.circuit.task.clean.clone();
    let plain = run.ask(&prompt, &[]);
    let check = |harness: &Window, edits: &[&str]| {
        let want = run.ask(&prompt, edits);
        for (column, p, before) in [
            ("whole model", &want.model, &plain.model),
            ("circuit alone", &want.circuit, &plain.circuit),
            ("complement", &want.complement, &plain.complement),
        ] {
            cell(harness, &run, column, p, (!edits.is_empty()).then_some(before));
        }
    };
    click(&mut harness, NODES[1]);
    click(&mut harness, "ablated");
    check(&harness, &["0.attn.v[9]=mean"]);
    assert_ne!(run.ask(&prompt, &["0.attn.v[9]=mean"]).circuit, plain.circuit, "or else the test shows nothing");
    click(&mut harness, "zero");
    check(&harness, &["0.attn.v[9]=0"]);
    click(&mut harness, &format!("at token {} only", run.tokenizer.encode(&prompt).unwrap().len() - 1));
    check(&harness, &["0.attn.v[9]@-1=0"]);
    // Any other node, by name; its number is typed into the slider.
    write(&mut harness, "node", "1.mlp.post_act[2]");
    number(&mut harness, "set to", "2.5");
    let both = ["0.attn.v[9]@-1=0", "1.mlp.post_act[2]=2.5"];
    check(&harness, &both);
    harness.get_by_label("1.mlp.post_act[2]=2.5");
    // What is no number changes nothing.
    for wrong in ["nan", "inf", "1e400"] {
        number(&mut harness, "set to", wrong);
        harness.get_by_label("1.mlp.post_act[2]=2.5");
    }
    check(&harness, &both);

    harness.key_press(Key::Escape);
    harness.step();
    let undo = |harness: &mut Window, modifiers| {
        harness.key_press_modifiers(modifiers, Key::Z);
        settle(harness);
    };
    for edits in [&both[..1], &["0.attn.v[9]=0"], &["0.attn.v[9]=mean"], &[]] {
        undo(&mut harness, Modifiers::COMMAND);
        check(&harness, edits);
    }
    undo(&mut harness, Modifiers::COMMAND | Modifiers::SHIFT);
    check(&harness, &["0.attn.v[9]=mean"]);
    click(&mut harness, "undo 0.attn.v[9]");
    check(&harness, &[]);
    write(&mut harness, "node", "0.attn.w[1]");
    harness.get_by_label_contains("one is written like");
    // What was set at a token that a shorter prompt does not have.
    undo(&mut harness, Modifiers::COMMAND);
    click(&mut harness, NODES[1]);
    click(&mut harness, &format!("at token {} only", run.tokenizer.encode(&prompt).unwrap().len() - 1));
    write(&mut harness, "prompt", "x");
    harness.get_by_label_contains("is not among 1");
}

#[test]
fn a_node_shows_its_activation_and_its_heads_attention() {
    let run = Run::new();
    let mut harness = open_tab(&run, "Prompt");
    let task = &run.circuit.task;
    let tokens = run.tokenizer.encode(&task.clean).unwrap();
    let want = run.ask(&task.clean, &[]);
    let last = (tokens.len() - 1) * 16 + 3;
    let expected = format!(": {:+.3}", want.sites[&SiteKind::AttnIn.at(0)].data[last]);
    harness.get_by_label(NODES[0]).hover();
    harness.run();
    let shown = harness.get_by_label_contains("in the prompt, at").accesskit_node().value().unwrap();
    assert!(shown.ends_with(&expected), "{shown} instead of {expected}");

    harness.remove_cursor();
    click(&mut harness, NODES[1]);
    assert_eq!(harness.state().view().unwrap().selected, Some(Item::Node(NODES[1].parse().unwrap())));
    // Channel 9 of 16 is in the second of two heads.
    assert!(harness.get_all_by_label("attention of head 1 in layer 0").count() >= 1);
    let pattern = run
        .model
        .attention_pattern(0, 1, &want.sites[&SiteKind::AttnQ.at(0)], &want.sites[&SiteKind::AttnK.at(0)])
        .unwrap();
    let row = &pattern[(tokens.len() - 1) * tokens.len()..];
    let most = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
    let text = |at: usize| run.tokenizer.token_str(tokens[at]).unwrap();
    let expected = format!("`{}` attends to `{}` {:.2}", text(tokens.len() - 1), text(most), row[most]);
    harness.get_by_label_contains(&expected);
    // The same on the text.
    click(&mut harness, "where head 1 of layer 0 attends to from the selected token");
    harness.get_by_label(&format!("token {most}, {}", token(&text(most)))).hover();
    harness.run();
    harness.get_by_label(&format!("token {most}, {:+.3}", row[most]));
}

/// The recipe of a fresh bridge tab.
fn first_recipe(run: &Run) -> Recipe {
    Recipe {
        version: Recipe::VERSION,
        sparse: ModelName { path: run.path.display().to_string(), hash: run.model.hash().unwrap() },
        prompt: run.circuit.task.clean.clone(),
        counterfactual: Some(run.circuit.task.counterfactual.clone()),
        nodes: vec![NODES[0].parse().unwrap()],
        edits: Vec::new(),
        strength: 1.0,
        random: 8,
        seed: 0,
        ratio: Ratio::SparseOverDense,
    }
}

/// The window shows the library's answers to a recipe.
fn check_steered(harness: &Window, run: &Run, recipe: &Recipe) {
    let [steered, random] = run.steer(recipe);
    cell(harness, run, "steered", &steered, None);
    cell(harness, run, "random channels", &random, None);
    let [plain, _] = run.steer(&Recipe { strength: 0.0, ..recipe.clone() });
    cell(harness, run, "dense model", &plain, None);
    let moved = steered.iter().zip(&plain).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(moved > 1e-3, "nothing moves");
    assert_eq!(harness.state().live().unwrap().steered().unwrap().recipe, *recipe);
}

#[test]
fn the_dense_model_is_steered_and_the_recipe_saved() {
    let run = Run::new();
    let mut harness = open_tab(&run, "Bridge");
    let mut recipe = first_recipe(&run);
    check_steered(&harness, &run, &recipe);
    harness.get_by_role_and_label(Role::Slider, "strength").focus();
    // A slider receives arrow keys once it has had the focus for a frame.
    harness.step();
    harness.step();
    for _ in 0..5 {
        harness.key_press(Key::ArrowRight);
        harness.step();
    }
    settle(&mut harness);
    recipe.strength = harness.state().view().unwrap().edits.live.steer.strength;
    assert!((recipe.strength - 1.05).abs() < 1e-9, "{}", recipe.strength);
    check_steered(&harness, &run, &recipe);

    click(&mut harness, "Save recipe");
    let file = run.path.join("circuits/single_double_quote.recipe.json");
    assert_eq!(Recipe::load(&file).unwrap(), recipe);
    // Another file of this name is replaced only when a second button says so.
    fs::write(&file, "mine").unwrap();
    click(&mut harness, "Save recipe");
    harness.get_by_label(&format!("{} exists", file.display()));
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    click(&mut harness, "Replace it");
    assert_eq!(Recipe::load(&file).unwrap(), recipe);
    harness.get_by_label("Copy as command").click();
    harness.step();
    let copied = harness.output().platform_output.commands.iter().find_map(|command| match command {
        OutputCommand::CopyText(text) => Some(text.clone()),
        _ => None,
    });
    assert_eq!(copied, Some(recipe.command()));

    write(&mut harness, "channel", "0.attn.q[3]");
    harness.get_by_label_contains("such as 3.attn.act_in[17]");
    harness.get_by_label("the numbers are those of an earlier request");
    click(&mut harness, "Open recipe");
    harness.get_by_label("up to date");
    check_steered(&harness, &run, &recipe);
    harness.key_press_modifiers(Modifiers::COMMAND, Key::Z);
    settle(&mut harness);
    assert_eq!(harness.state().view().unwrap().edits.live.steer.channel.as_deref(), Some("0.attn.q[3]"));
    write(&mut harness, "recipe", "missing.json");
    click(&mut harness, "Open recipe");
    harness.get_by_label_contains("missing.json");
}

#[test]
fn a_channel_is_changed_at_positions() {
    let run = Run::new();
    let mut harness = open_tab(&run, "Bridge");
    click(&mut harness, "at positions");
    click(&mut harness, "add");
    write(&mut harness, "positions", "-2");
    let recipe = Recipe {
        counterfactual: None,
        nodes: Vec::new(),
        edits: vec!["0.attn.act_in[3]@-2+=1".parse().unwrap()],
        ..first_recipe(&run)
    };
    check_steered(&harness, &run, &recipe);
    write(&mut harness, "positions", "the last");
    harness.get_by_label_contains("positions are numbers");
    write(&mut harness, "positions", "-2");
    write(&mut harness, "prompt", &"x ".repeat(200));
    harness.get_by_label_contains("but the model reads 96: shorten it");
    click(&mut harness, "clean prompt");
    number(&mut harness, "strength", "nan");
    number(&mut harness, "value", "1e400");
    check_steered(&harness, &run, &recipe);
    // The circuit writes channel 5 of the stream; a later sublayer reads it.
    click(&mut harness, "the same channels in other sublayers");
    harness.run();
    click(&mut harness, "1.mlp.act_in[5]");
    assert_eq!(harness.state().view().unwrap().edits.live.steer.channel.as_deref(), Some("1.mlp.act_in[5]"));
}

#[test]
fn without_a_model_or_bridges_it_says_how_to_continue() {
    let run = Run::new();
    let mut harness = window(None);
    click(&mut harness, "Prompt");
    harness.get_by_label_contains("is not next to it");
    for (named, shown) in [(run.path.join("nowhere"), "nowhere"), (run.path.clone(), "other sizes")] {
        write(&mut harness, "model", &named.display().to_string());
        click(&mut harness, "Open model");
        harness.get_by_label_contains(shown);
    }

    // A circuit that lies elsewhere, without the means that it was found with.
    let elsewhere = run.path.parent().unwrap().join("circuit.json");
    fs::copy(run.file(), &elsewhere).unwrap();
    let mut harness = open(&elsewhere);
    click(&mut harness, "Prompt");
    write(&mut harness, "model", &run.path.display().to_string());
    click(&mut harness, "Open model");
    harness.get_by_label_contains("means.safetensors");

    fs::remove_file(run.path.join("bridges.json")).unwrap();
    let mut harness = open_tab(&run, "Bridge");
    harness.get_by_label_contains("has no bridges next to it");
    assert!(harness.query_by_label("strength").is_none(), "there is nothing to steer");
    click(&mut harness, "Prompt");
    cell(&harness, &run, "whole model", &run.ask(&run.circuit.task.clean, &[]).model, None);
}

#[test]
fn a_model_without_circuits_answers_and_steers() {
    let run = Run::new();
    fs::remove_file(run.file()).unwrap();
    let mut harness = open(&run.path);
    click(&mut harness, "Prompt");
    assert!(harness.query_by_label("clean prompt").is_none(), "nothing of the example is left");
    harness.get_by_label("write a prompt");
    write(&mut harness, "prompt", "y = (7");
    let want = run.ask("y = (7", &[]).model;
    for id in ranked(&want).into_iter().take(4) {
        let text = token(&run.tokenizer.token_str(id).unwrap());
        harness.get_by_label(&format!("{text}, whole model: {:.4}", want[id as usize]));
    }
    assert!(harness.query_by_label("circuit alone").is_none());

    click(&mut harness, "Bridge");
    harness.get_by_label("choose a channel");
    write(&mut harness, "channel", NODES[0]);
    harness.get_by_label("write a counterfactual");
    write(&mut harness, "counterfactual", "y = [7");
    let recipe = harness.state().live().unwrap().steered().unwrap().recipe.clone();
    assert_eq!((recipe.prompt.as_str(), recipe.nodes[0].to_string().as_str()), ("y = (7", NODES[0]));
    let [steered, _] = run.steer(&recipe);
    for id in ranked(&steered).into_iter().take(4) {
        let text = token(&run.tokenizer.token_str(id).unwrap());
        harness.get_by_label(&format!("{text}, steered: {:.4}", steered[id as usize]));
    }
}

#[test]
fn nonfinite_values_are_an_error() {
    let run = Run::new();
    fs::remove_file(run.file()).unwrap();
    let weights = run.path.join("model.safetensors");
    let mut tensors = load_tensors(&weights).unwrap();
    tensors.get_mut("transformer.h.0.attn.c_attn.weight").unwrap().data[3] = f32::NAN;
    save_tensors(&weights, &tensors, None).unwrap();
    let mut harness = open(&run.path);
    click(&mut harness, "Prompt");
    write(&mut harness, "prompt", "y = (7");
    harness.get_by_label_contains("0.attn.q is not finite");
    assert!(harness.state().live().unwrap().answer().is_none());
}

#[test]
fn everything_that_can_be_used_has_a_name_and_fits() {
    let run = Run::new();
    for tab in ["Prompt", "Bridge"] {
        let mut harness = open_tab(&run, tab);
        click(&mut harness, NODES[1]);
        let uses =
            [Role::Button, Role::Slider, Role::SpinButton, Role::TextInput, Role::MultilineTextInput, Role::ComboBox];
        let mut count = 0;
        for node in harness.query_all(by().predicate(move |node| uses.contains(&node.role()))) {
            let accessible = node.accesskit_node();
            let named = accessible.label().or_else(|| accessible.value());
            assert!(named.is_some_and(|name| !name.is_empty()), "{tab}: something without a name: {accessible:?}");
            count += 1;
        }
        assert!(count > 30, "{tab}: only {count}");
        let window = harness.ctx.content_rect();
        for name in ["Prompt", "Bridge", "clean prompt", "prompt"] {
            for node in harness.query_all_by_label(name) {
                assert!(window.contains_rect(node.rect()), "{tab}: {name} is outside of the window");
            }
        }
    }
}

#[test]
fn a_bridge_edit_looks_as_it_did() {
    let run = Run::new();
    let mut harness = rendered([1280.0, 720.0], Some(&run.file()));
    click(&mut harness, "Bridge");
    harness.remove_cursor();
    harness.run();
    // Drivers round edges of lines differently, and devices the last digits; a bar that moved by a
    // point is more than this.
    harness.snapshot_options("bridge", &SnapshotOptions::new().threshold(1.0).max_failed_pixels(120));
}

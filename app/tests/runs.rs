//! Runs in the window: models without circuits, training, the search for circuits, the timeline,
//! pictures.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use common::{TINY, Window, circuit, click, open, poll_until, rendered, train, wait, wait_for, window, write};
use eframe::egui::Key;
use eframe::egui::accesskit::Role;
use egui_kittest::kittest::{NodeT, Queryable};
use gossamer::circuits::Circuit;
use gossamer::circuits::prune::SearchSettings;
use gossamer::formats::ModelFiles;
use gossamer::train::bridge::BridgeConfig;
use gossamer::train::lock::RunLock;
use gossamer_explorer::document::Document;
use gossamer_explorer::explorer::Explorer;
use gossamer_explorer::runs::{JobResult, JobSpec, RunJob, settings};
use gossamer_explorer::timeline::{Timeline, run_of};

#[test]
fn a_model_is_trained_stopped_and_opened_from_the_window() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("new");
    let mut harness = window(None);
    click(&mut harness, "Run");
    click(&mut harness, "Train…");
    // Far more steps than there is patience for.
    write(&mut harness, "settings", &TINY.replace("steps=6", "steps=100000"));
    write(&mut harness, "folder", &run.display().to_string());
    click(&mut harness, "Start");
    wait_for(&mut harness, "tokens/s");
    click(&mut harness, "Stop");
    wait_for(&mut harness, "stopped at step");
    assert!(fs::read_dir(run.join("checkpoints")).unwrap().count() > 0);
    click(&mut harness, "Open the result");
    wait_for(&mut harness, "a model without circuits");
    harness.run();
    harness.get_by_label("1 layer, 2 heads of 16, width 16, 64 neurons");
    harness.get_by_label("transformer.h.0.mlp.c_fc.weight");
    // And from there to its circuits.
    click(&mut harness, "Find a circuit…");
    harness.run();
    harness.get_by_label("Start");
    let named = run.display().to_string();
    assert!(harness.query_all_by_value(&named).next().is_some(), "the model is already named");
}

#[test]
fn what_cannot_be_started_says_why() {
    let mut harness = window(None);
    click(&mut harness, "Run");
    click(&mut harness, "Train…");
    let spaced = settings("quickstart", "data.paths=[\"a b\", 'c=d'] lr = 0.5").unwrap();
    assert_eq!((spaced.data.paths, spaced.train.lr), (vec!["a b".into(), "c=d".into()], 0.5));
    write(&mut harness, "settings", "d_modle=3");
    click(&mut harness, "Start");
    wait_for(&mut harness, "did you mean `model.d_model`?");
    click(&mut harness, "All right");
    harness.run();

    let folder = tempfile::tempdir().unwrap();
    let spec = JobSpec::Find { model: folder.path().into(), task: "var_if".into(), settings: Box::default() };
    let job = finished(spec);
    assert!(job.outcome.as_ref().unwrap().as_ref().is_err_and(|error| error.contains("no weights")));

    // The window would continue a run with bridges without them: it must not start it.
    let mut config = settings("quickstart", TINY).unwrap();
    config.bridge = Some(BridgeConfig { dense: "dense".into(), ..BridgeConfig::default() });
    let run = folder.path().join("bridged");
    fs::create_dir(&run).unwrap();
    fs::write(run.join("config.toml"), config.to_toml().unwrap()).unwrap();
    let spec = JobSpec::Train { config: Box::new(settings("quickstart", TINY).unwrap()), folder: run.clone() };
    let job = finished(spec);
    let expected = format!("`train --resume {}`", run.display());
    assert!(job.outcome.as_ref().unwrap().as_ref().is_err_and(|error| error.contains(&expected)), "{:?}", job.outcome);
    assert_eq!(fs::read_dir(&run).unwrap().count(), 1);
}

#[test]
fn a_run_that_another_process_writes_in_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let lock = RunLock::take(&run).unwrap();
    let spec = || JobSpec::Train { config: Box::new(settings("quickstart", TINY).unwrap()), folder: run.clone() };
    let job = finished(spec());
    let error = job.outcome.as_ref().unwrap().as_ref().unwrap_err();
    assert!(error.contains(&format!("process {} is writing in this run", std::process::id())), "{error}");
    drop(lock);
    let made = finished(spec()).outcome.take().unwrap().unwrap();
    assert_eq!(made.path, run);
}

/// The job once it has ended.
fn finished(spec: JobSpec) -> RunJob {
    let mut job = RunJob::start(spec, || ());
    poll_until(|| {
        job.poll();
        job.outcome.is_some()
    });
    job
}

/// The timeline of a run with three evaluated checkpoints.
fn evaluated(run: &Path, circuit: &Circuit) -> Timeline {
    let mut timeline = Timeline::start(run, circuit.clone(), || ());
    poll_until(|| {
        timeline.poll();
        assert!(timeline.error.is_none(), "{:?}", timeline.error);
        timeline.checkpoints().len() == 3
    });
    timeline
}

#[test]
fn circuits_are_found_and_the_search_can_be_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let run = train(folder.path());
    let spec = |steps, target_loss| {
        let settings = SearchSettings { steps, target_loss, pairs: 4, eval_pairs: 8, ..SearchSettings::default() };
        JobSpec::Find { model: run.clone(), task: "single_double_quote".into(), settings: Box::new(settings) }
    };
    // Chance is good enough, so that no node is needed.
    let job = finished(spec(3, 0.7));
    let JobResult { path: file, message, .. } = job.outcome.as_ref().unwrap().as_ref().unwrap();
    assert_eq!((file, job.curve.len()), (&run.join("circuits/single_double_quote.json"), 3));
    assert!(message.starts_with("0 nodes, 0 edges"), "{message}");
    assert_eq!(Circuit::load(file).unwrap().settings["steps"], 3);

    let evaluated = finished(JobSpec::Evaluate { circuit: file.clone(), model: run.clone() });
    let JobResult { path, message, report } = evaluated.outcome.as_ref().unwrap().as_ref().unwrap();
    assert!(path == file && message.ends_with("of 6 checks hold"), "{message}");
    let report = report.as_ref().unwrap();
    assert!(report.contains("0 nodes, 0 edges") && report.contains("random circuit 10"), "{report}");

    let mut job = RunJob::start(spec(1_000_000, 0.7), || ());
    poll_until(|| {
        job.poll();
        assert!(job.outcome.is_none(), "{:?}", job.outcome);
        job.progress.done > 0
    });
    job.stop();
    poll_until(|| {
        job.poll();
        job.outcome.is_some()
    });
    assert_eq!(job.outcome, Some(Err("stopped before it was done".into())));
}

#[test]
fn a_timeline_is_scrubbed_and_played() {
    let folder = tempfile::tempdir().unwrap();
    let run = train(folder.path());
    let file = circuit(&run);
    let mut harness = open(&file);
    click(&mut harness, "View");
    click(&mut harness, "Timeline");
    harness.key_press(Key::Escape);
    let known = |step: u64| {
        move |harness: &Window| {
            let text = format!("step {step} · loss");
            let line = harness.query_by_label_contains(&text);
            let text = line.and_then(|line| line.accesskit_node().value().or(line.accesskit_node().label()));
            text.is_some_and(|text| text.contains("edges, task loss"))
        }
    };
    wait(&mut harness, "last checkpoint", known(6));
    harness.get_by_label_contains("density: ");
    harness.get_by_label_contains("tasks, accuracy: ");
    harness.get_by_role_and_label(Role::Slider, "checkpoint").focus();
    // A slider keeps the arrow keys to itself from the frame on after the one in which it got the
    // focus.
    harness.step();
    harness.step();
    harness.key_press(Key::ArrowLeft);
    harness.step();
    wait(&mut harness, "checkpoint before it", known(4));
    harness.key_press(Key::ArrowLeft);
    harness.step();
    wait(&mut harness, "first checkpoint", known(2));
    // A selected node has its weights drawn.
    harness.get_by_label("0.mlp.post_act[1]").click();
    harness.run();
    harness.get_by_label_contains("weights at 0.mlp.post_act[1]: ");
    click(&mut harness, "Play");
    wait(&mut harness, "end of the film", known(6));
    wait_for(&mut harness, "Play");
    harness.run();
    // What was chosen is part of what is kept.
    assert!(harness.state().view().unwrap().timeline);
}

#[test]
fn a_residual_channels_tokens_come_from_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let run = train(folder.path());
    let mut harness = open(&circuit(&run));
    click(&mut harness, "0.mlp.act_in[1]");
    wait_for(&mut harness, "unembedding of residual channel 1");
    click(&mut harness, "embedding of residual channel 1");
    harness.run();
    // The largest weight of the column, as the file has it.
    let files = ModelFiles::open(&run).unwrap();
    let table = files.weights.read("transformer.wte.weight").unwrap();
    let column = table.data.iter().skip(1).step_by(16).copied();
    let largest = column.max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap();
    harness.get_by_label_contains(&format!("` {largest:+.3}"));
}

/// What a window leaves for the next one.
#[derive(Default)]
struct Kept(BTreeMap<String, String>);

impl eframe::Storage for Kept {
    fn get_string(&self, key: &str) -> Option<String> {
        self.0.get(key).cloned()
    }

    fn set_string(&mut self, key: &str, value: String) {
        self.0.insert(key.into(), value);
    }

    fn remove_string(&mut self, key: &str) {
        self.0.remove(key);
    }

    fn flush(&mut self) {}
}

#[test]
fn what_was_chosen_is_there_again_and_pictures_leave_out_what_is_hidden() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("quote.json");
    fs::write(&file, include_bytes!("../assets/single_double_quote.json")).unwrap();
    let mut harness = open(&file);
    let circuit = Circuit::load(&file).unwrap();
    let (first, edges) = (circuit.nodes[0].node(), circuit.edges.len());
    click(&mut harness, &first.to_string());
    click(&mut harness, "hide");
    click(&mut harness, "File");
    click(&mut harness, "Save as .svg: a picture");
    let svg = fs::read_to_string(file.with_extension("export.svg")).unwrap();
    let drawn = |svg: &str| svg.matches("class=\"edge\"").count();
    let lost = circuit.edges.iter().filter(|edge| edge.from == first || edge.to == first).count();
    assert!(lost > 0 && drawn(&svg) == edges - lost && drawn(&gossamer::circuits::svg(&circuit)) == edges);
    assert!(!svg.contains(&format!("data-node=\"{first}\"")));
    harness.get_by_label(&format!("saved {}", file.with_extension("export.svg").display()));

    // A file of this name is replaced only after a question.
    fs::write(file.with_extension("export.svg"), "mine").unwrap();
    for (answer, replaced) in [("Keep it", false), ("Replace it", true)] {
        click(&mut harness, "File");
        click(&mut harness, "Save as .svg: a picture");
        harness.run();
        harness.get_by_label(&format!("{} exists.", file.with_extension("export.svg").display()));
        click(&mut harness, answer);
        assert_eq!(fs::read_to_string(file.with_extension("export.svg")).unwrap() == svg, replaced);
    }

    click(&mut harness, "View");
    click(&mut harness, "Timeline");
    click(&mut harness, "Run");
    click(&mut harness, "Train…");
    write(&mut harness, "settings", "steps=7");
    let mut kept = Kept::default();
    eframe::App::save(harness.state_mut(), &mut kept);
    let again = Explorer::new(&eframe::egui::Context::default(), Some(&kept), None);
    assert!(again.view().is_some());
    let steps = |kept: &Kept| {
        let kept = Kept(kept.0.clone());
        let new = move |context: &mut eframe::CreationContext| Explorer::new(&context.egui_ctx, Some(&kept), None);
        let mut harness = egui_kittest::Harness::builder().build_eframe(new);
        harness.step();
        harness.query_by_label("First steps").is_some()
    };
    assert!(steps(&Kept::default()) && !steps(&kept), "first steps are for a first session");
    let text = &kept.0["session"];
    assert!(text.contains("\"timeline\":true") && text.contains("steps=7") && text.contains("quote.json"), "{text}");

    // What cannot be read of it costs nothing else.
    let mut kept = Kept::default();
    let views = r#"{"":{"threshold":0.25},"damaged":{"threshold":null}}"#;
    kept.0.insert("session".into(), format!(r#"{{"recent":["a.json"],"views":{views},"runs":{{"steps":"many"}}}}"#));
    let mut again = Explorer::new(&eframe::egui::Context::default(), Some(&kept), None);
    assert_eq!(again.view().unwrap().threshold, 0.25);
    eframe::App::save(&mut again, &mut kept);
    let text = &kept.0["session"];
    assert!(text.contains("a.json") && text.contains("0.25") && !text.contains("damaged"), "{text}");
}

#[test]
fn of_too_many_views_those_that_were_open_longest_ago_go() {
    let view = serde_json::json!({ "threshold": 0.25 });
    let views: std::collections::BTreeMap<String, _> = (0..502).map(|i| (format!("{i:03}"), view.clone())).collect();
    // An earlier version knew no order; since then 001, 000 and 501 were open.
    let session = serde_json::json!({ "views": views, "order": ["001", "000", "501"] });
    let mut kept = Kept::default();
    kept.0.insert("session".into(), session.to_string());
    let mut window = Explorer::new(&eframe::egui::Context::default(), Some(&kept), None);
    eframe::App::save(&mut window, &mut kept);
    let session: serde_json::Value = serde_json::from_str(&kept.0["session"]).unwrap();
    let views = session["views"].as_object().unwrap();
    assert_eq!(views.len(), 500);
    assert!(["002", "003"].iter().all(|name| !views.contains_key(*name)), "the oldest are gone");
    assert!(["000", "001", "004", "501"].iter().all(|name| views.contains_key(*name)));
}

#[test]
fn paths_are_kept_whole_and_those_that_are_no_text_cost_nothing() {
    let mut harness = open("assets/single_double_quote.json".as_ref());
    let mut kept = Kept::default();
    eframe::App::save(harness.state_mut(), &mut kept);
    let whole = std::path::absolute("assets/single_double_quote.json").unwrap();
    let recent = serde_json::from_str::<serde_json::Value>(&kept.0["session"]).unwrap()["recent"].clone();
    assert_eq!(recent, serde_json::json!([whole]));

    #[cfg(target_os = "linux")]
    {
        use std::os::unix::ffi::OsStrExt;
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join(std::ffi::OsStr::from_bytes(b"quotes\xff"));
        fs::create_dir(&odd).unwrap();
        let file = odd.join("quote.json");
        fs::copy(&whole, &file).unwrap();
        let mut harness = open(&file);
        let mut kept = Kept::default();
        eframe::App::save(harness.state_mut(), &mut kept);
        assert!(kept.0["session"].contains("\"recent\":[]"), "{:?}", kept.0);
    }
}

#[test]
fn an_edge_has_a_place_before_it_has_a_weight() {
    let folder = tempfile::tempdir().unwrap();
    let run = train(folder.path());
    let file = circuit(&run);
    assert_eq!(run_of(Some(&file), "elsewhere".as_ref()), Some(run.clone()));
    assert_eq!(run_of(None, "elsewhere".as_ref()), None);
    let last = Circuit::load(&file).unwrap();
    let mut timeline = evaluated(&run, &last);
    assert_eq!((timeline.steps.as_slice(), timeline.step()), (&[2, 4, 6][..], Some(6)));
    assert_eq!(timeline.logged.iter().map(|line| line.step).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    let weights = |circuit: &Circuit| circuit.edges.iter().filter(|edge| edge.weight != 0.0).count();
    let mut sizes = Vec::new();
    for at in 0..3 {
        timeline.select(at);
        let now = timeline.circuit().unwrap();
        sizes.push((now.edges.len(), weights(&now), now.embeddings.len(), now.unembeddings.len()));
    }
    // The run's density falls: of as many places, fewer are taken.
    assert!(sizes.iter().all(|size| size.0 == sizes[0].0 && size.2 == sizes[0].2 && size.3 == sizes[0].3), "{sizes:?}");
    assert!(sizes[2].1 < sizes[0].1, "{sizes:?}");
    // The last one is the circuit that was opened, and every line has a number a checkpoint.
    let now = timeline.circuit().unwrap();
    for edge in &last.edges {
        let same = now.edges.iter().find(|other| (other.from, other.to) == (edge.from, edge.to)).unwrap();
        assert_eq!(same.weight, edge.weight);
    }
    let lines = timeline.weights(last.edges[0].from);
    assert!(!lines.is_empty() && lines.values().all(|line| line.len() == 3));
    let ends = (last.edges[0].from, last.edges[0].to);
    assert_eq!(lines[&ends][2], (6.0, last.edges[0].weight));
}

#[test]
fn a_damaged_checkpoint_does_not_end_the_timeline_and_one_that_is_named_is_it() {
    let folder = tempfile::tempdir().unwrap();
    let run = train(folder.path());
    let last = Circuit::load(circuit(&run)).unwrap();
    let checkpoint = |step: u64| {
        let all = gossamer::train::checkpoint::list(&run).unwrap();
        all.into_iter().find(|(at, _)| *at == step).unwrap().1
    };
    for named in [checkpoint(2), checkpoint(6)] {
        assert_eq!(Document::open(&named).unwrap().model_path(), Some(named));
    }
    fs::write(checkpoint(4).join("model.safetensors"), "damaged").unwrap();
    let timeline = evaluated(&run, &last);
    let whole: Vec<bool> = timeline.checkpoints().map(|m| m.circuit.is_ok() && m.scores.is_ok()).collect();
    assert_eq!(whole, [true, false, true]);
}

#[test]
fn the_view_is_saved_as_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("quote.json");
    fs::write(&file, include_bytes!("../assets/single_double_quote.json")).unwrap();
    let mut harness = rendered([960.0, 600.0], Some(&file));
    click(&mut harness, "File");
    click(&mut harness, "Save view as PNG");
    let picture = file.with_extension("export.png");
    wait(&mut harness, "picture", |_| picture.exists());
    wait_for(&mut harness, "saved ");
    let mut reader = png::Decoder::new(std::io::BufReader::new(fs::File::open(&picture).unwrap())).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    // What is left between the panels.
    assert!((200..700).contains(&info.width) && (400..600).contains(&info.height), "{info:?}");
    let colors: BTreeSet<[u8; 3]> = pixels.as_chunks::<3>().0.iter().copied().collect();
    assert!(colors.len() > 50, "{} colors", colors.len());
}

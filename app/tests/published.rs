//! A published circuit, written byte by byte, in the window.

mod common;
#[path = "../../tests/formats/pickled.rs"]
mod pickled;
#[path = "../../tests/formats/stored_zip.rs"]
mod stored_zip;

use std::fs;
use std::path::PathBuf;

use common::{click, wait_for, window};
use egui_kittest::kittest::Queryable;
use gossamer::circuits::Circuit;
use gossamer_explorer::item::Item;
use pickled::{Py, archive, payload};

fn published(folder: &tempfile::TempDir, payload: &Py) -> PathBuf {
    let folder = folder.path().join("viz/csp_yolo2/bracket_counting/prune_v4/k_optim");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("viz_data.pt");
    fs::write(&file, archive(payload)).unwrap();
    file
}

#[test]
fn it_opens_and_its_nodes_are_described() {
    let folder = tempfile::tempdir().unwrap();
    let file = published(&folder, &payload());
    let mut harness = window(Some(&file));
    wait_for(&mut harness, "a published circuit of csp_yolo2: prune_v4, k_optim");
    harness.run();
    harness.get_by_label("7 nodes of 144, 5 edges");
    harness.get_by_label("the circuit: task loss 0.150");
    harness.get_by_label("0.mlp ablated: task loss +0.500");
    harness.get_by_label_contains("loss while it was pruned: 0.5");
    for node in ["0.mlp.act_in[3]", "0.mlp.post_act[9]", "1.attn.v[6]", "1.attn.resid_delta[0]"] {
        harness.get_by_label(node);
    }
    click(&mut harness, "0.mlp.post_act[9]");
    harness.run();
    let selected = harness.state().view().unwrap().selected;
    assert_eq!(selected.map(|item: Item| item.to_string()).as_deref(), Some("0.mlp.post_act[9]"));
    harness.get_by_label("task loss when ablated +0.200");
    harness.get_by_label("top 0.1 %: +3.750");
    // In positive prompts it is 1 to 7, in negative ones -11 to -17.
    click(&mut harness, "0.mlp.act_in[3]");
    click(&mut harness, "difference");
    harness.run();
    harness.get_by_label("nonzero at 100.00 % of 5 positions; +12.000 to +24.000");
    harness.get_by_label("clean prompt minus counterfactual, written as the clean one");
    harness.get_by_label("top 0.1 %: +24.000");
    // It can be taken away as a circuit file.
    click(&mut harness, "File");
    click(&mut harness, "Save as .json: the circuit file, with its residual paths spelled out");
    let saved = Circuit::load(file.with_extension("export.json")).unwrap();
    assert_eq!((saved.nodes.len(), saved.edges.len()), (7, 5));
}

#[test]
fn missing_parts_are_listed_and_damage_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut less = payload();
    less.remove("samples");
    less.at("importances").remove("task_samples");
    let file = published(&folder, &less);
    let mut harness = window(Some(&file));
    wait_for(&mut harness, "There are no samples");
    harness.run();
    harness.get_by_label_contains("There are no task_samples");
    click(&mut harness, "1.attn.v[6]");
    harness.run();
    harness.get_by_label("no texts are known");

    let whole = archive(&payload());
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let mut harness = window(Some(&file));
    wait_for(&mut harness, "viz_data.pt: not a whole zip archive");
}

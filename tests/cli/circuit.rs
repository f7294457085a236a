//! `gossamer circuit`.

use std::fs;

use super::{fails, gossamer, succeeds, text};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/circuit-example.json");

#[test]
fn a_circuit_is_shown_edge_by_edge() {
    let said = succeeds(&mut gossamer(&["circuit", "show", EXAMPLE]));
    assert!(said.starts_with("single_double_quote: "), "{said}");
    assert!(said.contains("1.attn.v[6] --(+0.880, +1.700)--> 1.attn.resid_delta[28]"), "{said}");
}

#[test]
fn a_circuit_is_exported_to_the_output_and_to_files() {
    let folder = tempfile::tempdir().expect("a folder");
    for (format, start) in [
        ("svg", "<svg "),
        ("dot", "digraph circuit {"),
        ("json", "{\n  \"version\": 1"),
        ("txt", "single_double_quote: "),
    ] {
        let export = ["circuit", "export", EXAMPLE, "--format", format];
        let printed = succeeds(&mut gossamer(&export));
        assert!(printed.starts_with(start), "{printed}");
        let file = folder.path().join(format!("drawn.{format}"));
        assert_eq!(succeeds(gossamer(&export).args(["--out", text(&file)])), "");
        assert_eq!(fs::read_to_string(&file).expect("the file"), printed);
    }
    // What was exported as JSON is a circuit file.
    succeeds(&mut gossamer(&["circuit", "show", text(&folder.path().join("drawn.json"))]));
}

#[test]
fn a_threshold_leaves_out_what_matters_less() {
    let part = ["circuit", "show", EXAMPLE, "--threshold", "1.5"];
    let said = succeeds(&mut gossamer(&part));
    assert!(said.contains("shown: ") && said.contains("1.attn.v[6] --(+0.880, +1.700)--> "), "{said}");
    let export = |format| ["circuit", "export", EXAMPLE, "--format", format, "--threshold", "1.5"];
    assert!(succeeds(&mut gossamer(&export("svg"))).contains("shown: "));
    let page = page_data(&succeeds(&mut gossamer(&export("html"))));
    assert_eq!(page["circuits"][0]["threshold"], 1.5);
    for format in ["json", "viz"] {
        fails(&mut gossamer(&export(format)), &[format, "--threshold"]);
    }
    fails(&mut gossamer(&["circuit", "show", EXAMPLE, "--threshold", "99"]), &["99", "the most is"]);
    fails(&mut gossamer(&["circuit", "show", EXAMPLE, "--threshold=-1"]), &["--threshold"]);
}

#[test]
fn what_is_no_circuit_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("quotes.json");
    fails(&mut gossamer(&["circuit", "show", text(&file)]), &["quotes.json", "No such file"]);
    fails(&mut gossamer(&["circuit", "show", text(folder.path())]), &[text(folder.path())]);
    fs::write(&file, "{\"version\": 7}").expect("written");
    fails(&mut gossamer(&["circuit", "show", text(&file)]), &["quotes.json", "version 7"]);
    fails(&mut gossamer(&["circuit", "export", text(&file), "--format", "dot"]), &["quotes.json", "version 7"]);
    fails(&mut gossamer(&["circuit", "export", text(&file), "--format", "png"]), &["png", "svg, dot, json"]);
    let nowhere = folder.path().join("none/drawn.svg");
    let export = ["circuit", "export", EXAMPLE, "--format", "svg", "--out", text(&nowhere)];
    fails(&mut gossamer(&export), &["drawn.svg"]);
}

/// The data in a page of HTML.
pub(crate) fn page_data(page: &str) -> serde_json::Value {
    let (_, after) = page.split_once("<script id=\"data\" type=\"application/json\">").expect("the data");
    serde_json::from_str(after.split_once("</script>").expect("its end").0).expect("JSON")
}

#[test]
fn a_page_holds_circuits_with_their_layout() {
    let folder = tempfile::tempdir().expect("a folder");
    let second = folder.path().join("second.json");
    let mut circuit: serde_json::Value = serde_json::from_slice(&fs::read(EXAMPLE).expect("it")).expect("JSON");
    let name = "</script><script>alert(1)</script>";
    circuit["task"]["name"] = name.into();
    fs::write(&second, circuit.to_string()).expect("written");

    let page = succeeds(&mut gossamer(&["circuit", "export", EXAMPLE, text(&second), "--format", "html"]));
    assert!(page.starts_with("<!DOCTYPE html>") && page.len() < 2_000_000);
    // The data, the script, and no third one.
    assert_eq!(page.matches("<script").count(), 2, "a name must not become a script");
    assert_eq!(page.matches("src=").count() + page.matches("href=").count(), 0);
    let data = page_data(&page);
    assert_eq!(data["circuits"][1]["name"], name);
    let first = &data["circuits"][0];
    let (nodes, edges) = (first["circuit"]["nodes"].as_array().unwrap(), first["circuit"]["edges"].as_array().unwrap());
    let boxes = first["layout"]["boxes"].as_array().unwrap();
    assert_eq!(boxes.iter().filter(|node_box| node_box["kind"] == "node").count(), nodes.len());
    let lines = first["layout"]["lines"].as_array().unwrap();
    assert_eq!(lines.iter().filter(|line| line["edge"].is_u64()).count(), edges.len());
    // The widest edge is the one that costs most when it is cut.
    let most = |values: Vec<f64>| values.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
    let effects = edges.iter().map(|edge| edge["effect"].as_f64().unwrap().abs()).collect();
    let widths = first["widths"].as_array().unwrap().iter().map(|width| width.as_f64().unwrap()).collect();
    assert_eq!(most(effects), most(widths));
}

#[test]
fn formats_of_one_circuit_refuse_two() {
    for format in ["svg", "viz"] {
        let export = ["circuit", "export", EXAMPLE, EXAMPLE, "--format", format];
        fails(&mut gossamer(&export), &[format, "one circuit", "html"]);
    }
}

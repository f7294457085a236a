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

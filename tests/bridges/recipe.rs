//! Recipes: what they do is what steering does by hand, and their command is what a shell makes of
//! it.

use std::process::Command;

use gossamer::bridges::{Change, Channel, ModelName, Ratio, Recipe, Steering};
use gossamer::device::Device;
use gossamer::text::tokenizer::Tokenizer;

use crate::pair::Pair;

fn recipe() -> Recipe {
    Recipe {
        version: Recipe::VERSION,
        sparse: ModelName { path: "runs/bridged".into(), hash: "sha256:0".into() },
        prompt: "print(\"it's\n\t$HOME".into(),
        counterfactual: Some("print('it\\'s".into()),
        nodes: vec!["0.mlp.act_in[3]".parse().unwrap()],
        edits: Vec::new(),
        strength: 0.7,
        random: 4,
        seed: 9,
        ratio: Ratio::SparseOverDense,
    }
}

/// A tokenizer of the tokens 0 to 18 of the pair's models: single characters, of which `a` is token
/// 0.
fn letters() -> Tokenizer {
    let vocab: String = (0..19u8).map(|id| format!("\"{}\": {id},", (b'a' + id) as char)).collect();
    let level = r#""add_prefix_space": false, "trim_offsets": false, "use_regex": false"#;
    let json = format!(
        r#"{{"version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null, "truncation": null, "padding": null,
            "pre_tokenizer": {{"type": "ByteLevel", {level}}}, "decoder": {{"type": "ByteLevel", {level}}},
            "model": {{"type": "BPE", "vocab": {{{}}}, "merges": []}}}}"#,
        vocab.trim_end_matches(',')
    );
    Tokenizer::from_json(&json).unwrap()
}

#[test]
fn a_recipe_does_what_steering_does_by_hand() {
    let pair = Pair::smooth();
    let device = Device::cpu();
    let (dense, sparse, bridges) = pair.models(&device);
    let reference: Vec<Vec<u32>> = pair.tokens.chunks(6).map(<[u32]>::to_vec).collect();
    let steering = Steering::new(&dense, &sparse, &bridges, &reference, Ratio::default()).unwrap();
    let (tokenizer, prompt, other) = (letters(), [1, 2, 3], [1, 4, 3]);
    let of_another = Recipe { prompt: "bcd".into(), counterfactual: Some("bed".into()), ..recipe() };
    let said = of_another.change(&steering, &tokenizer).unwrap_err().to_string();
    assert!(said.contains("another sparse model") && said.contains("sha256:0"), "{said}");
    let of_this = ModelName { path: "runs/bridged".into(), hash: sparse.hash().unwrap() };
    let mut recipe = Recipe { sparse: of_this, ..of_another };
    let channel = recipe.nodes[0];

    let change = recipe.change(&steering, &tokenizer).unwrap();
    let by_hand = steering.read(&prompt).unwrap().towards(&steering.read(&other).unwrap(), channel);
    assert_eq!(change, by_hand);
    let said = recipe.compare(&steering, &prompt, &change).unwrap();
    let of = |change: Change| steering.probabilities(&prompt, &[change]).unwrap().remove(0);
    let close = |got: &[f64], want: &[f64], what: &str| {
        assert_eq!(got.len(), 19);
        let off = got.iter().zip(want).map(|(g, w)| (g - w).abs()).fold(0.0, f64::max);
        assert!(off < 1e-6, "{what}: {off}");
    };
    close(&said.plain, &of(Change::default()), "plain");
    close(&said.steered, &of(change.scaled(0.7)), "steered");
    assert!(said.steered.iter().zip(&said.plain).any(|(a, b)| (a - b).abs() > 1e-4), "nothing moved");
    let draws: Vec<Vec<f64>> =
        steering.controls(&[channel], 4, 9).iter().map(|draw| of(draw.apply(&change.scaled(0.7)))).collect();
    let mean: Vec<f64> = (0..19).map(|id| draws.iter().map(|p| p[id]).sum::<f64>() / 4.0).collect();
    close(said.random.as_deref().unwrap(), &mean, "random");
    recipe.random = 0;
    assert_eq!(recipe.compare(&steering, &prompt, &change).unwrap().random, None);

    // An edit: at full strength the channel becomes 2 at the last position.
    recipe.edits = vec!["0.mlp.act_in[3]@-1=2".parse().unwrap()];
    let edited = recipe.change(&steering, &tokenizer).unwrap();
    let before = steering.read(&prompt).unwrap().channel(channel);
    assert_eq!(edited, Change::new(channel, vec![0.0, 0.0, 2.0 - before[2]]));

    let says = |recipe: Recipe| recipe.change(&steering, &tokenizer).unwrap_err().to_string();
    assert!(says(Recipe { edits: Vec::new(), counterfactual: None, ..recipe.clone() }).contains("steer by"));
    assert!(says(Recipe { prompt: String::new(), ..recipe }).contains("prompt is empty"));
}

#[test]
fn files_read_back_and_wrong_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recipe.json");
    recipe().save(&file).unwrap();
    assert_eq!(Recipe::load(&file).unwrap(), recipe());
    let edits = Recipe { nodes: Vec::new(), edits: vec!["1.attn.act_in[2]@-1+=1".parse().unwrap()], ..recipe() };
    edits.save(&file).unwrap();
    assert_eq!(Recipe::load(&file).unwrap(), edits);

    let refused = |recipe: Recipe| recipe.save(&file).unwrap_err().to_string();
    assert!(refused(Recipe { nodes: Vec::new(), ..recipe() }).contains("either nodes or edits"));
    assert!(refused(Recipe { counterfactual: None, ..recipe() }).contains("no counterfactual"));
    assert!(refused(Recipe { strength: f64::NAN, ..recipe() }).contains("`strength` is NaN, not a number"));
    let text = std::fs::read_to_string(&file).unwrap();
    for (from, to, told) in [
        ("\"version\":1", "\"version\":7", "version 7"),
        ("1.attn.act_in[2]@-1+=1", "1.attn.act_in[2]@-1", "the form is"),
        ("\"prompt\"", "\"prompted\"", "prompt"),
    ] {
        std::fs::write(&file, text.replace(from, to)).unwrap();
        let error = Recipe::load(&file).unwrap_err().to_string();
        assert!(error.contains(told) && error.contains("recipe.json"), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn a_shell_reads_the_command_as_it_was_meant() {
    let words = |recipe: &Recipe| -> Vec<String> {
        let command = recipe.command();
        let script = format!("set -- {command}; printf '%s\\0' \"$@\"");
        let out = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(out.status.success(), "{command}");
        let out = String::from_utf8(out.stdout).unwrap();
        out.trim_end_matches('\0').split('\0').map(Into::into).collect()
    };
    let recipe = recipe();
    let other = recipe.counterfactual.clone().unwrap();
    let fixed = ["--strength", "0,0.7", "--random", "4", "--seed", "9"];
    let start = ["gossamer", "steer", "runs/bridged", "--prompt", &recipe.prompt, "--counterfactual", &other];
    assert_eq!(words(&recipe), [&start[..], &["--node", "0.mlp.act_in[3]"], &fixed].concat());

    let edits = ["2.mlp.act_in[0]@-1,2:=2", "0.attn.act_in[5]*=0.5"];
    let node = Channel { sublayer: 0, index: 1 };
    let plain = Recipe {
        sparse: ModelName { path: "my runs/a".into(), ..recipe.sparse },
        prompt: "-x".into(),
        counterfactual: None,
        nodes: vec![node],
        edits: edits.iter().map(|edit| edit.parse().unwrap()).collect(),
        strength: 0.0,
        ratio: Ratio::DenseOverSparse,
        ..recipe
    };
    let start = ["gossamer", "steer", "my runs/a", "--prompt=-x", "--node", "0.attn.act_in[1]"];
    let sets = ["--set", edits[0], "--set", edits[1], "--strength", "0", "--random", "4", "--seed", "9"];
    assert_eq!(words(&plain), [&start[..], &sets, &["--ratio", "dense-over-sparse"]].concat());
}

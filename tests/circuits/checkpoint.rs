//! A circuit's nodes and the tasks in other checkpoints, against weights and logits read one at a
//! time.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use gossamer::Error;
use gossamer::circuits::checkpoint::{CheckpointEvalConfig, scores};
use gossamer::circuits::prune::SearchSettings;
use gossamer::circuits::search::{CircuitSearch, SearchResult};
use gossamer::circuits::tasks::{self, Split};
use gossamer::circuits::{Circuit, Layout, Node, Nodes, channel_tokens, text_means};
use gossamer::device::Device;
use gossamer::model::{Batch, Model, ModelConfig, NoHooks, Weights};
use gossamer::observer::Observer;
use gossamer::tape::Tape;
use gossamer::text::python;
use gossamer::text::source::Source;
use gossamer::text::tokenizer::Tokenizer;

const NODES: [&str; 6] = [
    "0.attn.act_in[2]",
    "0.attn.v[5]",
    "0.attn.resid_delta[7]",
    "0.mlp.act_in[7]",
    "0.mlp.post_act[11]",
    "0.mlp.resid_delta[1]",
];
pub(crate) const LOOK: CheckpointEvalConfig = CheckpointEvalConfig { pairs: 8, mean_tokens: 512 };

pub(crate) fn tokenizer() -> Tokenizer {
    Tokenizer::train(python::documents(0).take(300), 512, &Observer::default()).unwrap()
}

fn model(seed: u64) -> Model {
    let config = ModelConfig {
        block_size: 64,
        vocab_size: 512,
        n_layer: 1,
        n_head: 2,
        d_model: 16,
        rms_norm: true,
        tied_unembed: false,
        ..ModelConfig::default()
    };
    Model::new(config, seed, &Device::cpu()).unwrap()
}

/// The circuit of [`NODES`] in a model, whatever it is good for.
pub(crate) fn circuit(model: &Model, tokenizer: &Tokenizer) -> Circuit {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::new(&model.config);
    let mut keep = vec![false; layout.len()];
    for name in NODES {
        keep[layout.number(name.parse().unwrap()).unwrap()] = true;
    }
    let means = text_means(
        model,
        tokenizer,
        &Source::default(),
        LOOK.mean_tokens,
        &folder.path().join("means.safetensors"),
        &Observer::default(),
    )
    .unwrap();
    let search = CircuitSearch { model, nodes: Nodes::new(layout, &means, &model.device).unwrap(), tokenizer };
    let scores = vec![0.0; keep.len()];
    let settings = SearchSettings { eval_pairs: LOOK.pairs, ..SearchSettings::default() };
    let task = tasks::find("single_double_quote").unwrap();
    search
        .describe(
            &task,
            &SearchResult { settings, keep, scores, ..SearchResult::default() },
            "a run",
            &model.hash().unwrap(),
        )
        .unwrap()
}

#[test]
fn edges_are_the_weights_that_the_checkpoint_has() {
    let (tokenizer, later, earlier) = (tokenizer(), model(1), model(2));
    let circuit = circuit(&later, &tokenizer);
    let there = circuit.at_checkpoint(&earlier, &tokenizer, LOOK, Arc::default()).unwrap();
    let nodes = |circuit: &Circuit| circuit.nodes.iter().map(|entry| entry.node()).collect::<Vec<Node>>();
    assert_eq!(nodes(&there), nodes(&circuit));
    assert_eq!(there.model.hash, earlier.hash().unwrap());
    let weight = |name: &str, row: usize, column: usize| {
        let tensor = earlier.parameters.get(name).unwrap().read().unwrap();
        f64::from(tensor.data[row * tensor.shape[1] + column])
    };
    let want = [
        ("0.attn.act_in[2]", "0.attn.v[5]", weight("transformer.h.0.attn.c_attn.weight", 32 + 5, 2)),
        ("0.attn.v[5]", "0.attn.resid_delta[7]", weight("transformer.h.0.attn.c_proj.weight", 7, 5)),
        ("0.mlp.act_in[7]", "0.mlp.post_act[11]", weight("transformer.h.0.mlp.c_fc.weight", 11, 7)),
        ("0.mlp.post_act[11]", "0.mlp.resid_delta[1]", weight("transformer.h.0.mlp.c_proj.weight", 1, 11)),
    ];
    let got: Vec<_> = there.edges.iter().map(|e| (e.from.to_string(), e.to.to_string(), e.weight)).collect();
    assert_eq!(got, want.map(|(from, to, weight)| (from.to_string(), to.to_string(), weight)));
    // In its own model, it is itself.
    let again = circuit.at_checkpoint(&later, &tokenizer, LOOK, Arc::default()).unwrap();
    assert_eq!(
        again.edges.iter().map(|e| e.weight).collect::<Vec<_>>(),
        circuit.edges.iter().map(|e| e.weight).collect::<Vec<_>>()
    );
    assert_eq!(
        again.nodes.iter().map(|n| n.clean).collect::<Vec<_>>(),
        circuit.nodes.iter().map(|n| n.clean).collect::<Vec<_>>()
    );
    assert_ne!(again.edges[0].weight, there.edges[0].weight);
}

#[test]
fn scores_are_those_of_the_logits() {
    let (tokenizer, model) = (tokenizer(), model(3));
    let all = scores(&model, &tokenizer, 6, &AtomicBool::new(false)).unwrap();
    assert!(all.len() > 10, "of 512 entries, most tasks can be answered: {}", all.len());
    let task = tasks::find("single_double_quote").unwrap();
    let batch = tasks::batch(&task, Split::Test, 0, 0, 6, &tokenizer, model.config.block_size).unwrap();
    let weights = Weights::constant(&model, &[]);
    let margin = |prompt: &[u32], right: u32, wrong: u32| {
        let input = Batch::new(&model.device, &model.config, prompt, 1).unwrap();
        let logits = model.forward(&mut Tape::new(), &weights, &input, &mut NoHooks).unwrap().value().read().unwrap();
        let last = &logits[logits.len() - model.config.vocab_size..];
        f64::from(last[right as usize]) - f64::from(last[wrong as usize])
    };
    let sides = batch.tokens.iter().flat_map(|pair| {
        [
            margin(&pair.clean, pair.target, pair.alternative),
            margin(&pair.counterfactual, pair.alternative, pair.target),
        ]
    });
    let margins: Vec<f64> = sides.collect();
    assert_eq!(margins.len(), 12);
    let loss = margins.iter().map(|z| (-z).exp().ln_1p()).sum::<f64>() / 12.0;
    let accuracy = margins.iter().filter(|z| **z > 0.0).count() as f64 / 12.0;
    let got = all.iter().find(|score| score.task == task.name).unwrap();
    assert!((got.loss - loss).abs() < 1e-5 && got.accuracy == accuracy, "{got:?} against {loss}, {accuracy}");
}

#[test]
fn a_channels_tokens_are_the_largest_of_its_column() {
    let (tokenizer, model) = (tokenizer(), model(5));
    let folder = tempfile::tempdir().unwrap();
    model.save(folder.path()).unwrap();
    let files = gossamer::formats::ModelFiles::open(folder.path()).unwrap();
    let found = channel_tokens(&files.config, files.weights.as_ref(), Some(&tokenizer), 3, 7).unwrap();
    for (found, name) in found.iter().zip(["transformer.wte.weight", "lm_head.weight"]) {
        let table = model.parameters.get(name).unwrap().read().unwrap();
        let mut column: Vec<(u32, f32)> = (0..512).map(|id| (id, table.data[id as usize * 16 + 3])).collect();
        column.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
        let want: Vec<_> = column[..7].iter().map(|&(id, w)| (id, f64::from(w), tokenizer.token_text(id))).collect();
        let got: Vec<_> = found.tokens.iter().map(|t| (t.id, t.weight, t.text.clone())).collect();
        assert_eq!(got, want, "{name}");
    }
    assert!(channel_tokens(&files.config, files.weights.as_ref(), None, 16, 7).is_err());
}

#[test]
fn looking_stops_when_it_is_told_to() {
    let (tokenizer, model) = (tokenizer(), model(4));
    let circuit = circuit(&model, &tokenizer);
    let stop = Arc::new(AtomicBool::new(true));
    let stopped = circuit.at_checkpoint(&model, &tokenizer, LOOK, stop.clone());
    assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
    assert!(matches!(scores(&model, &tokenizer, 6, &stop), Err(Error::Stopped)));
    // A model without the nodes.
    let mut other = circuit;
    other.nodes[0].index = 1000;
    let message = other.at_checkpoint(&model, &tokenizer, LOOK, Arc::default()).unwrap_err().to_string();
    assert!(message.contains("no node"), "{message}");
}

#[test]
fn means_are_kept_for_the_text_that_they_were_taken_over() {
    let (tokenizer, model) = (tokenizer(), model(4));
    let folder = tempfile::tempdir().unwrap();
    let (text, kept) = (folder.path().join("a.py"), folder.path().join("means.safetensors"));
    let means = |line: &str| {
        std::fs::write(&text, line.repeat(200)).unwrap();
        let means = text_means(&model, &tokenizer, &Source::new([&text]), 256, &kept, &Observer::default()).unwrap();
        let touched = std::fs::metadata(&kept).unwrap().modified().unwrap();
        (means, touched)
    };
    let (first, written) = means("x = 1\n");
    assert_eq!(means("x = 1\n"), (first.clone(), written), "read from the file");
    // The same name, other text.
    let (other, _) = means("print('egg')\n");
    assert_ne!(other, first);
    assert_eq!(means("x = 1\n").0, first);
}

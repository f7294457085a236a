//! Attribution graphs: the fields that their viewers require, and the circuit's numbers in them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use gossamer::circuits::Circuit;
use gossamer::formats::attribution_graph::{GraphPrompt, GraphToken, attribution_graph};
use gossamer::model::ModelConfig;
use serde_json::Value;

fn token(id: u32, text: &str) -> GraphToken {
    GraphToken { id, text: text.into() }
}

#[test]
fn a_graph_has_what_viewers_ask_for_and_the_numbers_of_the_circuit() {
    let circuit = Circuit::load(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/circuit-example.json")).unwrap();
    let sizes = &circuit.model;
    let config = ModelConfig {
        n_layer: sizes.n_layer,
        n_head: sizes.n_head,
        d_head: Some(sizes.d_head),
        d_model: sizes.d_model,
        d_mlp: Some(sizes.d_mlp),
        d_pos_emb: Some(sizes.d_pos_emb),
        ..ModelConfig::default()
    };
    // The activation of every node is farthest from its mean at the second token, `('`.
    let far = |mean: f64| vec![mean as f32, mean as f32 - 3.0, mean as f32 + 1.0];
    let prompt = GraphPrompt {
        text: "print('a".into(),
        tokens: vec![token(3, "print"), token(70, "('"), token(4, "\"a\\")],
        activations: circuit.nodes.iter().map(|entry| (entry.node(), far(entry.mean))).collect(),
        predicted: vec![(token(71, "')"), 0.75), (token(68, "\")"), 0.25)],
    };
    let text = attribution_graph(&circuit, &config, &prompt);
    assert_eq!(text, attribution_graph(&circuit, &config, &prompt));
    let graph: Value = serde_json::from_str(&text).unwrap();

    for (field, text) in [("slug", "single-double-quote"), ("prompt", "print('a")] {
        assert_eq!(graph["metadata"][field], text);
    }
    assert_eq!(graph["metadata"]["prompt_tokens"].as_array().unwrap().len(), 3);
    assert!(graph["metadata"]["scan"].is_string() && graph["qParams"]["linkType"] == "both");
    let nodes = graph["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), circuit.nodes.len() + 3 + 2);
    for node in nodes {
        for field in ["node_id", "layer", "feature_type", "jsNodeId", "clerp"] {
            assert!(node[field].is_string(), "{field}: {node}");
        }
        assert!(node["feature"].is_u64() && node["ctx_idx"].as_u64().unwrap() < 3, "{node}");
    }
    let ids: BTreeSet<&str> = nodes.iter().map(|node| node["node_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), nodes.len());
    let features: Vec<&Value> = nodes.iter().filter(|node| node["feature_type"] == "cross layer transcoder").collect();
    assert!(features.iter().all(|node| node["ctx_idx"] == 1));
    // The node with the largest effect first, the last one's share is everything.
    let shares: Vec<f64> = features.iter().map(|node| node["influence"].as_f64().unwrap()).collect();
    let total: f64 = circuit.nodes.iter().map(|entry| entry.ablation_delta.abs()).sum();
    let largest = circuit.nodes.iter().map(|entry| entry.ablation_delta.abs()).fold(0.0, f64::max);
    assert!((shares.iter().copied().fold(f64::MAX, f64::min) - largest / total).abs() < 1e-12);
    assert!((shares.iter().copied().fold(0.0, f64::max) - 1.0).abs() < 1e-12);
    let logit = nodes.iter().find(|node| node["is_target_logit"] == true).unwrap();
    assert_eq!((&logit["token_prob"], &logit["clerp"]), (&0.75.into(), &"Output \"')\" (p=0.750)".into()));

    let names: BTreeMap<&str, &str> =
        nodes.iter().map(|node| (node["node_id"].as_str().unwrap(), node["clerp"].as_str().unwrap())).collect();
    let links = graph["links"].as_array().unwrap();
    let end = |link: &Value, end: &str| names[link[end].as_str().unwrap()].to_string();
    let mut got: Vec<_> = links.iter().filter(|link| !link["effect"].is_null()).collect();
    got.sort_by_key(|link| (end(link, "source"), end(link, "target")));
    let mut want: Vec<_> = circuit.edges.iter().collect();
    want.sort_by_key(|edge| (edge.from.to_string(), edge.to.to_string()));
    assert_eq!(got.len(), want.len());
    for (link, edge) in got.iter().zip(want) {
        assert_eq!((end(link, "source"), end(link, "target")), (edge.from.to_string(), edge.to.to_string()));
        assert_eq!((link["weight"].as_f64(), link["effect"].as_f64()), (Some(edge.weight), Some(edge.effect)));
    }
    // The stream, and the listed weights of the token at the position and of the answers.
    let has = |source: &str, target: &str, weight: f64| {
        links.iter().any(|link| {
            end(link, "source") == source && end(link, "target") == target && link["weight"].as_f64() == Some(weight)
        })
    };
    assert!(has("0.mlp.resid_delta[9]", "1.attn.act_in[9]", 1.0));
    let weight = |lists: &[gossamer::circuits::TokenWeights], channel, id| {
        let list = lists.iter().find(|list| list.channel == channel).unwrap();
        list.tokens.iter().find(|token| token.id == id).unwrap().weight
    };
    assert!(has("Emb: \"('\"", "0.mlp.act_in[17]", weight(&circuit.embeddings, 17, 70)));
    assert!(has("1.attn.resid_delta[28]", "Output \"')\" (p=0.750)", weight(&circuit.unembeddings, 28, 71)));
}

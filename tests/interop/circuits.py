"""What `gossamer circuit export` writes, read by PyTorch and by the rules of the published viewers.

    python tests/interop/circuits.py --gossamer target/release/gossamer

`train` must be in the same folder. Needs torch.
"""

import argparse
import csv
import json
import pathlib
import subprocess
import tempfile

import torch

PARTS = ["attn.act_in", "attn.q", "attn.k", "attn.v", "attn.resid_delta", "mlp.act_in", "mlp.post_act", "mlp.resid_delta"]
JOINED = [("attn.act_in", "attn.q"), ("attn.act_in", "attn.k"), ("attn.act_in", "attn.v"),
          ("attn.v", "attn.resid_delta"), ("mlp.act_in", "mlp.post_act"), ("mlp.post_act", "mlp.resid_delta")]


def run(program, *arguments):
    return subprocess.run([str(FOLDER / program), *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True).stdout


def check_payload(path, circuit, measured):
    """Everything that the published viewer asks of a file, in its types."""
    data = torch.load(path, weights_only=True, map_location="cpu")
    kept, samples, importances = data["circuit_data"], data["samples"], data["importances"]
    layers = circuit["model"]["n_layer"]
    sites = [f"{layer}.{part}" for layer in range(layers) for part in PARTS]
    assert list(kept) == sites == list(importances["ch_interv_losses"])
    nodes = {site: [node["index"] for node in circuit["nodes"] if node["site"] == site] for site in sites}
    for site in sites:
        assert kept[site].dtype == torch.int64 and sorted(nodes[site]) == kept[site].tolist(), site
        assert len(importances["ch_interv_losses"][site]) == len(nodes[site]), site
        assert isinstance(samples[site], dict), site
    alone = importances["interv_loss"] / 2
    assert abs(alone - circuit["losses"]["train"]["circuit"]) < 1e-12
    for node in circuit["nodes"]:
        loss = importances["ch_interv_losses"][node["site"]][kept[node["site"]].tolist().index(node["index"])]
        assert abs(loss / 2 - alone - node["ablation_delta"]) < 1e-12, node
    assert set(importances["layer_interv_losses"]) == {f"{i}.{part}" for i in range(layers) for part in ("attn", "mlp")}

    want = {(edge["from"], edge["to"]): edge["effect"] for edge in circuit["edges"]}
    pairs = importances["pair_data"]
    assert [pair[3] for pair in pairs] == [(f"{i}.{a}", f"{i}.{b}") for i in range(layers) for a, b in JOINED]
    got = {}
    for (effects, sources, targets, (source, target)), connections in zip(pairs, importances["pair_data_connections"]):
        assert isinstance(effects, torch.Tensor) and effects.shape == (len(sources), len(targets))
        for i, j in connections[0].nonzero().tolist():
            got[f"{source}[{sources[i]}]", f"{target}[{targets[j]}]"] = float(effects[i, j])
    assert set(got) == set(want)
    assert all(abs(got[edge] - effect) <= 1e-6 * abs(effect) for edge, effect in want.items())

    tokens, activations = importances["task_samples"]
    assert tokens.dtype == torch.int64 and list(activations) == sites
    if not measured:
        return
    assert len(tokens) > 0 and len(tokens) % 2 == 0
    assert all(value == value for value in importances["layer_interv_losses"].values())
    for site in sites:
        assert set(activations[site]) == set(nodes[site]), site
        assert all(values.shape == tokens.shape for values in activations[site].values()), site
        for index in nodes[site]:
            texts = [sample for ends in samples[site][index].values() for end in ends for sample in end[:5]]
            assert set(samples[site][index]) == {0.001, 0.01, 0.1, 0.5}, site
            # The viewer stacks them.
            torch.stack([values for _, values, _ in texts])
            assert all(len(ids) == len(values) and position < len(ids) for ids, values, position in texts), site


def check_graph(path, circuit):
    """The fields that circuit-tracer's and Neuronpedia's viewers require, and what they do with them."""
    graph = json.loads(path.read_text())
    types = {"slug": str, "scan": str, "prompt_tokens": list, "prompt": str, "transcoder_list": list, "schema_version": int}
    assert all(isinstance(graph["metadata"][key], kind) for key, kind in types.items())
    assert set(graph["qParams"]) == {"pinnedIds", "supernodes", "linkType", "clickedId", "sg_pos"}
    tokens = graph["metadata"]["prompt_tokens"]
    types = {"node_id": str, "feature": int, "layer": str, "ctx_idx": int, "feature_type": str, "jsNodeId": str, "clerp": str}
    for node in graph["nodes"]:
        assert all(isinstance(node[key], kind) for key, kind in types.items()), node
        assert 0 <= node["ctx_idx"] < len(tokens) and (node["layer"] == "E" or node["layer"].isdigit()), node
        if node["feature_type"] == "logit":
            assert abs(float(node["clerp"].split("(p=")[1].split(")")[0]) - node["token_prob"]) < 1e-3
    ids = {node["node_id"] for node in graph["nodes"]}
    assert len(ids) == len(graph["nodes"])
    assert all({link["source"], link["target"]} <= ids and isinstance(link["weight"], float) for link in graph["links"])
    names = {node["node_id"]: node["clerp"] for node in graph["nodes"]}
    edges = {(names[link["source"]], names[link["target"]]): link for link in graph["links"] if "effect" in link}
    assert set(edges) == {(edge["from"], edge["to"]) for edge in circuit["edges"]}
    for edge in circuit["edges"]:
        link = edges[edge["from"], edge["to"]]
        assert (link["weight"], link["effect"]) == (edge["weight"], edge["effect"])
    assert sum(node["feature_type"] == "embedding" for node in graph["nodes"]) == len(tokens)


def check_tables(file, circuit, work):
    for what, fields in [("nodes", {"mean": "mean", "tau": "tau", "ablation_delta": "ablation_delta"}),
                         ("edges", {"weight": "weight", "effect": "effect"})]:
        out = work / f"{what}.csv"
        run("gossamer", "circuit", "export", file, "--format", f"{what}.csv", "--out", out)
        with open(out, newline="") as lines:
            rows = list(csv.DictReader(lines))
        assert len(rows) == len(circuit[what])
        for column, field in fields.items():
            assert sorted(float(row[column]) for row in rows) == sorted(row[field] for row in circuit[what]), field


parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
parser.add_argument("--gossamer", type=pathlib.Path, required=True, help="the program")
FOLDER = parser.parse_args().gossamer.resolve().parent
with tempfile.TemporaryDirectory() as folder:
    work = pathlib.Path(folder)
    MODEL = work / "example"
    run("gossamer", "example", "--out", MODEL)
    run("train", "circuit", MODEL, "--task", "single_double_quote", "--target-loss", "0.6", "--set", "steps=40",
        "--set", "pairs=8", "--set", "eval_pairs=16", "--no-clean-up", "--mean-tokens", "8192", "--out", work, "--device", "cpu")
    file = work / "single_double_quote.json"
    circuit = json.loads(file.read_text())
    assert circuit["nodes"] and circuit["edges"], circuit["counts"]

    check_tables(file, circuit, work)
    out = work / "alone.pt"
    run("gossamer", "circuit", "export", file, "--format", "viz", "--out", out)
    check_payload(out, circuit, measured=False)
    run("gossamer", "circuit", "stats", file, "--model", MODEL, "--max-tokens", "8192", "--device", "cpu")
    out = work / "viz_data.pt"
    run("gossamer", "circuit", "export", file, "--format", "viz", "--model", MODEL, "--device", "cpu", "--out", out)
    check_payload(out, circuit, measured=True)
    # And back.
    again = json.loads(run("gossamer", "circuit", "export", out, "--format", "json"))
    first = json.loads(run("gossamer", "circuit", "export", file, "--format", "json"))
    assert again == first
    run("gossamer", "circuit", "export", out, "--format", "neuronpedia", "--model", MODEL, "--device", "cpu",
        "--out", work / "graph.json")
    check_graph(work / "graph.json", circuit)
    print(f"circuits: {len(circuit['nodes'])} nodes and {len(circuit['edges'])} edges in torch, csv and graph files")

"""Training, tasks, circuits and bridges."""

import json
import subprocess

import numpy as np
import pytest

import gossamer as gs


def test_metrics_are_those_of_the_file(run):
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert run.metrics["step"].tolist() == [line["step"] for line in lines]
    assert run.metrics["loss"].tolist() == [line["loss"] for line in lines]
    assert len(run.metrics["loss"]) == 20
    assert len({len(column) for column in run.metrics.values()}) == 1


def test_training_reports_every_step_and_stops_by_an_exception(tmp_path):
    seen = []

    class Enough(Exception):
        pass

    def on_step(progress):
        seen.append((progress.step, progress.loss))
        if progress.step >= 5:
            raise Enough

    with pytest.raises(Enough):
        train(tmp_path / "a", steps=1000, on_step=on_step)
    assert [step for step, _ in seen[:5]] == [1, 2, 3, 4, 5]
    assert all(np.isfinite(loss) for _, loss in seen)
    assert (tmp_path / "a" / "checkpoints").is_dir()


SETTINGS = {
    "n_layer": 1,
    "d_model": 16,
    "n_head": 2,
    "d_head": 8,
    "d_mlp": 32,
    "block_size": 16,
    "vocab_size": 300,
    "data.generated_documents": 60,
    "data.val_fraction": 0.1,
    "batch_size": 4,
    "log_every": 1,
    "samples": 0,
}


def train(out, **arguments):
    return gs.train(settings=SETTINGS, out=out, device="cpu", progress=False, **arguments)


def test_the_bits_are_those_of_the_command_line(tmp_path):
    ours = train(tmp_path / "ours", steps=10, seed=3)
    settings = [f"--set={key}={value}" for key, value in SETTINGS.items()]
    command = ["train", "--steps", "10", "--seed", "3", "--device", "cpu", "--out", "theirs", *settings]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    theirs = gs.load(tmp_path / "theirs", device="cpu")
    assert ours.model.hash == theirs.hash
    text = "import os"
    command = ["gossamer", "generate", "theirs", "--prompt", text, "--seed", "5", "--temperature", "0.8", "--device", "cpu"]
    done = subprocess.run([*command, "--max-new-tokens", "12"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert ours.model.generate(text, max_new_tokens=12, temperature=0.8, seed=5) + "\n" == done.stdout


def test_loss_on_text_is_the_mean_over_its_tokens(run, tmp_path):
    (tmp_path / "text.py").write_text("x = 1\n" * 40)
    ids = run.model.tokenizer.encode("x = 1\n" * 40)
    result = run.model.evaluate([tmp_path / "text.py"], max_tokens=64)
    assert result["predictions"] == 63
    assert result["loss"] == pytest.approx(run.model.loss(ids[:64]), abs=1e-5)


def test_text_prompts(run):
    model, text = run.model, "def f(x):\n"
    ids = model.tokenizer.encode(text)
    assert model.tokenizer.decode(np.array(ids)) == text
    assert "".join(model.to_str_tokens(text)) == text
    np.testing.assert_array_equal(model.run(text), model.run(ids))
    logits, cache = model.run_with_cache([text, "x = 1"], sites=["0.mlp.post_act"])
    assert cache.lengths.tolist() == [len(ids), len(model.tokenizer.encode("x = 1"))]
    assert logits.shape[:2] == cache["mlp.post_act", 0].shape[:2] == (2, max(cache.lengths))
    correct, incorrect = model.tokenizer.decode([5]), model.tokenizer.decode([6])
    value = model.gradients(text, ("logit_diff", correct, incorrect), sites="final_resid").value
    last = model.run(text)[0, -1]
    assert value == pytest.approx(float(last[5] - last[6]), abs=1e-5)


def test_tasks_score_what_the_model_says(run):
    assert "single_double_quote" in gs.tasks.names()
    pairs = [{"clean": f"a{i}", "counterfactual": f"b{i}", "target": "(", "alternative": ")"} for i in range(10)]
    task = gs.tasks.Task(pairs, test=pairs[:3], name="mine")
    assert task.pairs(3, split="test")[0].keys() == pairs[0].keys()
    score = gs.tasks.evaluate(run.model, task, pairs=3)["test"]
    left, right = (run.model.tokenizer.single_token(text) for text in "()")
    losses = []
    for pair in pairs[:3]:
        for prompt, (answer, other) in ((pair["clean"], (left, right)), (pair["counterfactual"], (right, left))):
            logits = run.model.run(prompt)[0, -1].astype(float)
            losses.append(np.log1p(np.exp(logits[other] - logits[answer])))
    assert score["pairs"] == 3
    assert score["loss"] == pytest.approx(np.mean(losses), abs=1e-5)


def test_pairs_of_a_model_are_those_that_it_is_evaluated_on(run):
    task = gs.tasks.Task.open("var_if")
    pairs = task.pairs(16, split="test", model=run.model)
    losses = []
    for pair in pairs:
        assert run.model.tokenizer.single_token(pair["target"]) == pair["target_id"]
        answers = pair["target_id"], pair["alternative_id"]
        for prompt, (answer, other) in ((pair["clean_ids"], answers), (pair["counterfactual_ids"], answers[::-1])):
            logits = run.model.run(prompt)[0, -1].astype(float)
            losses.append(np.log1p(np.exp(logits[other] - logits[answer])))
    score = gs.tasks.evaluate(run.model, "var_if", pairs=16)["test"]
    assert score["loss"] == pytest.approx(np.mean(losses), abs=1e-5)


@pytest.fixture(scope="module")
def task(run):
    """A task that the model does: the answers are the tokens that it tells the two prompts apart by."""
    # Both end alike, so that the embedding of the last token alone does not tell.
    prompts = [(f"{name}(x", f"{name}[x") for name in ("a", "b", "x", "y", "n", "i", "j", "k", "m", "s")]
    apart = np.mean([run.model.run(one)[0, -1] - run.model.run(other)[0, -1] for one, other in prompts], axis=0)
    # Of the tokens that are whole characters.
    tokenizer = run.model.tokenizer
    texts = {text: id for id in range(len(tokenizer)) if tokenizer.single_token(text := tokenizer.decode([id])) == id}
    target, *_, alternative = sorted(texts, key=lambda text: -apart[texts[text]])
    pairs = [(one, other, target, alternative) for one, other in prompts]
    return gs.tasks.Task(pairs, name="brackets")


# The model hardly learned anything and prefers one answer, which only a shift balances.
SEARCH = {"steps": 20, "eval_pairs": 8, "calibration": "affine"}


@pytest.fixture(scope="module")
def circuit(run, task):
    return gs.find_circuit(run.model, task, target_loss=0.5, settings=SEARCH, mean_tokens=2000, progress=False)


def test_a_circuit_evaluates_to_what_its_file_says(run, circuit):
    assert circuit.evaluate(run.model, calibration="affine") == circuit.losses
    assert circuit.losses["test"]["circuit"] < 0.8


def test_the_nodes_alone_do_the_task(run, circuit, task):
    """The circuit's loss from hooks that put every other node at its mean, uncalibrated."""
    assert 0 < len(circuit) < 200 and circuit.nodes[0]["node"] in circuit
    means = circuit.means(run.model)
    kept = {}
    for node in circuit.nodes:
        kept.setdefault(node["site"], []).append(node["index"])

    def ablate(array, site):
        ablated = np.broadcast_to(means[site], array.shape).copy()
        ablated[..., kept.get(site, [])] = array[..., kept.get(site, [])]
        return ablated

    hooks = {site: ablate for site in means}
    losses = []
    for pair in task.pairs(8, split="train", seed=0):
        answer, other = (run.model.tokenizer.single_token(pair[name]) for name in ("target", "alternative"))
        for prompt, sign in ((pair["clean"], 1), (pair["counterfactual"], -1)):
            logits = run.model.run_with_hooks(prompt, hooks)[0, -1].astype(float)
            losses.append(np.log1p(np.exp(-sign * (logits[answer] - logits[other]))))
    assert np.mean(losses) == pytest.approx(circuit.losses["train"]["circuit_uncalibrated"], abs=1e-4)


def test_a_circuit_without_its_nodes_is_worse(run, circuit):
    node = max(circuit.nodes, key=lambda node: node["ablation_delta"])
    smaller = circuit.without(node)
    assert len(smaller) == len(circuit) - 1 and node["node"] not in smaller
    assert all(node["node"] not in (edge["source"], edge["target"]) for edge in smaller.edges)
    with pytest.raises(ValueError, match="describe"):
        smaller.losses
    with pytest.raises(ValueError, match="no node of the circuit"):
        smaller.without(node["node"])
    described = smaller.describe(run.model)
    assert described.losses == smaller.evaluate(run.model, calibration="affine")
    assert described.losses["train"]["circuit"] > circuit.losses["train"]["circuit"]


def test_ablation_by_zero_is_another_number(run, circuit):
    zero = circuit.evaluate(run.model, ablation="zero")["test"]
    means = {site: np.zeros(width) for site, width in run.model.sites.items()}
    assert zero == circuit.evaluate(run.model, means=means)["test"]
    assert zero["circuit_uncalibrated"] != circuit.losses["test"]["circuit_uncalibrated"]


def test_every_ablation_has_its_own_number(run, circuit):
    losses = {name: circuit.evaluate(run.model, ablation=name)["test"]["circuit_uncalibrated"] for name in ABLATIONS}
    assert len(set(losses.values())) == len(ABLATIONS)
    with pytest.raises(ValueError, match="ablation"):
        circuit.evaluate(run.model, ablation="median")


ABLATIONS = ["mean", "task-mean", "zero", "resample", "interchange"]


def test_scale_changes_no_accuracy_and_affine_only_lowers_the_train_loss(run, circuit):
    plain, scale, affine = (circuit.evaluate(run.model, calibration=kind) for kind in ("none", "scale", "affine"))
    assert plain["train"]["circuit"] == plain["train"]["circuit_uncalibrated"]
    assert scale["test"]["accuracy_circuit"] == plain["test"]["accuracy_circuit"]
    losses = [kind["train"]["circuit"] for kind in (affine, scale, plain)]
    assert losses[0] <= losses[1] + 1e-9 and losses[1] <= losses[2] + 1e-9


def test_a_check_says_what_would_refute_the_circuit(run, circuit):
    checked = circuit.check(run.model, controls=2, calibration="affine")
    assert checked["calibrated"]["test"]["circuit"]["loss"] == circuit.losses["test"]["circuit"]
    assert len(checked["minimality"]["nodes"]) == len(circuit) and len(checked["controls"]["random_circuits"]) == 2
    names = [check["name"] for check in checked["checks"]]
    assert names == [
        "sufficient", "necessary", "interchange", "minimal", "random_circuits", "random_weights", "nonsense_task"
    ]
    diffs = checked["mean_logit_diffs"]
    share = (diffs["circuit"] - diffs["empty"]) / (diffs["model"] - diffs["empty"])
    assert checked["faithfulness"] == pytest.approx(share)


def test_nodes_are_added_and_left_out(run, circuit, task):
    node = circuit.nodes[0]["node"]
    again = circuit.without(node).with_nodes(node).describe(run.model)
    assert [row["node"] for row in again.nodes] == [row["node"] for row in circuit.nodes]
    assert again.edges == circuit.edges and again.losses == circuit.losses
    with pytest.raises(ValueError, match="already"):
        circuit.with_nodes(node)
    other = gs.find_circuit(run.model, task, 0.69, exclude=[node], settings=SEARCH, mean_tokens=2000, progress=False)
    assert node not in other


def test_a_circuit_survives_a_file(circuit, run, tmp_path):
    circuit.save(tmp_path / "brackets.json")
    again = gs.Circuit.load(tmp_path / "brackets.json")
    assert again.nodes == circuit.nodes and again.edges == circuit.edges
    assert again.task == "brackets" and again.model_hash == run.model.hash
    assert "<svg" in again._repr_svg_() and "digraph" in again.to_dot()


def test_bridges_train_evaluate_and_steer(run, tmp_path):
    settings = {key: value for key, value in SETTINGS.items() if key not in ("n_layer", "block_size", "vocab_size")}
    bridged = gs.train_bridges(
        run.checkpoint, settings=settings, steps=3, out=tmp_path / "bridges", device="cpu", progress=False
    )
    (tmp_path / "text.py").write_text("x = 1\n" * 200)
    evaluation = bridged.evaluate(data=[tmp_path / "text.py"], max_tokens=256)
    assert [site["name"] for site in evaluation["sites"]] == ["0.resid_in", "0.resid_mid", "final_resid"]
    sequences = np.array(run.model.tokenizer.encode("x = 1\n" * 200))[: evaluation["tokens"]].reshape(-1, 64)
    assert evaluation["dense_loss"] == pytest.approx(run.model.loss(sequences), abs=1e-4)
    prompt = "x = 'a"
    [steered] = bridged.steer(
        prompt, edits="0.attn.act_in[1]+=1", strengths=[0, 1e4], random=0, max_tokens=256
    )
    logits = run.model.run(prompt)[0, -1].astype(float)
    probabilities = np.exp(logits) / np.exp(logits).sum()
    for token in steered["next"]:
        before, after = token["steered"]
        assert before == pytest.approx(probabilities[token["token"]], abs=1e-6)
    assert after != before


def test_convert_keeps_the_numbers(run, tmp_path):
    gs.convert(run.folder, tmp_path / "converted")
    converted = gs.load(tmp_path / "converted", device="cpu")
    np.testing.assert_allclose(converted.run("x = 1"), run.model.run("x = 1"), rtol=1e-5, atol=1e-5)


def test_training_continues_from_a_model_and_by_a_longer_schedule(tmp_path):
    first = train(tmp_path / "first", steps=6, seed=3)
    longer = gs.train(resume=first.folder, steps=9, progress=False)
    assert longer.folder == tmp_path / "first-9"
    assert longer.metrics["step"].tolist() == list(range(1, 10))
    settings = {"lr": 0.001, "log_every": 1, "samples": 0, "generated_documents": 60, "val_fraction": 0.1}
    again = gs.train(init=first.model, steps=2, settings=settings, out=tmp_path / "again", device="cpu", progress=False)
    assert again.model.config["d_model"] == 16
    assert abs(again.metrics["loss"][0] - first.metrics["loss"][-1]) < 0.5

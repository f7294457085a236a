"""Logits, activations, gradients and hooks against plain PyTorch in float64."""

import numpy as np
import pytest
import reference
import torch
from conftest import PROMPTS

import gossamer as gs


def close(actual, expected, tolerance=2e-5):
    expected = np.asarray(expected.detach() if isinstance(expected, torch.Tensor) else expected)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def test_comparison_catches_a_small_error():
    with pytest.raises(AssertionError):
        close(np.float32([1.0, 2.0001]), np.array([1.0, 2.0]))


def test_logits_and_every_site(pair):
    oracle, model = pair
    logits, cache = model.run_with_cache(PROMPTS)
    assert list(cache.keys()) == list(model.sites)
    assert logits.shape == (3, 7, oracle.config["vocab_size"])
    for number, prompt in enumerate(PROMPTS):
        expected, sites = oracle.run(prompt)
        close(logits[number, : len(prompt)], expected)
        assert set(cache) == set(sites)
        for name, value in sites.items():
            assert cache[name].shape == (3, 7, model.sites[name])
            close(cache[name][number, : len(prompt)], value)
            assert not cache[name][number, len(prompt) :].any()


def test_a_prompt_alone_and_in_a_batch_are_the_same(pair):
    _, model = pair
    batch = model.run(PROMPTS)
    for number, prompt in enumerate(PROMPTS):
        close(model.run(prompt)[0], batch[number, : len(prompt)], 1e-5)


def test_gradients_of_the_loss(pair):
    oracle, model = pair
    prompt = PROMPTS[0]
    logits, sites = oracle.run(prompt)
    value = reference.loss(logits, prompt)
    value.backward()
    result = model.gradients(prompt)
    assert result.value == pytest.approx(value.item(), abs=1e-5)
    assert model.loss(prompt) == pytest.approx(value.item(), abs=1e-5)
    for name, activation in sites.items():
        close(result.cache[name][0], activation)
        close(result[name][0], activation.grad)


def test_gradients_of_a_logit_difference_over_unequal_prompts(pair):
    oracle, model = pair
    answers = [(1, 2), (3, 0), (4, 5)]
    result = model.gradients(PROMPTS, ("logit_diff", *zip(*answers)), sites="resid|mlp")
    total = 0.0
    for number, (prompt, (correct, incorrect)) in enumerate(zip(PROMPTS, answers)):
        logits, sites = oracle.run(prompt)
        value = (logits[-1, correct] - logits[-1, incorrect]) / len(PROMPTS)
        value.backward()
        total += value.item()
        for name in result.gradients:
            gradient = sites[name].grad
            close(result[name][number, : len(prompt)], torch.zeros_like(sites[name]) if gradient is None else gradient)
    assert result.value == pytest.approx(total, abs=1e-5)


def test_hooks_that_change_values(pair):
    oracle, model = pair
    prompt = PROMPTS[0]
    seen = []

    def halve(array, site):
        seen.append((site, array.shape, array.flags.writeable))
        return array / 2

    names = ["0.resid_in", "0.attn.q", "0.mlp.post_act", "final_resid"]
    expected, _ = oracle.run(prompt, {name: lambda x: x / 2 for name in names})
    close(model.run_with_hooks(prompt, dict.fromkeys(names, halve))[0], expected)
    assert seen == [(name, (1, 7, model.sites[name]), False) for name in names]


def test_gradients_through_hooks(pair):
    oracle, model = pair
    prompt = PROMPTS[0]
    ramp = torch.linspace(0.3, 1.7, oracle.config["d_model"]).double()
    logits, sites = oracle.run(prompt, {"0.mlp.resid_delta": lambda x: ramp.expand_as(x)})
    reference.loss(logits, prompt).backward()
    result = model.gradients(prompt, hooks={"0.mlp.resid_delta": lambda array, site: ramp}, sites="resid_delta")
    close(result["0.mlp.resid_delta"][0], sites["0.mlp.resid_delta"].grad)
    close(result.cache["0.mlp.resid_delta"][0], ramp.expand(7, -1))


def test_edits_are_those_of_the_command_line(pair):
    oracle, model = pair
    prompt = PROMPTS[0]

    def edited(x):
        x = x.clone()
        x[-1] = 0
        x[0, 2] += 1.5
        return x

    expected, _ = oracle.run(prompt, {"0.attn.resid_delta": edited})
    edits = ["0.attn.resid_delta@-1=0", "0.attn.resid_delta[2]@0+=1.5"]
    close(model.run(prompt, edits=edits)[0], expected)
    close(model.run_with_cache(prompt, edits=edits)[0][0], expected)


def test_patches_and_means(pair):
    oracle, model = pair
    prompt, donor = PROMPTS[0], [6, 5, 4, 3, 2, 1, 0]
    _, sites = oracle.run(donor)
    patch = sites["0.resid_mid"].detach()
    expected, _ = oracle.run(prompt, {"0.resid_mid": lambda x: patch})
    close(model.run(prompt, edits="0.resid_mid=patch", patch_from=donor)[0], expected)
    mean = torch.linspace(-1, 1, oracle.config["d_model"]).double()
    expected, _ = oracle.run(prompt, {"0.resid_mid": lambda x: mean.expand_as(x)})
    close(model.run(prompt, edits="0.resid_mid=mean", means={"0.resid_mid": mean})[0], expected)


def test_attention(pair):
    oracle, model = pair
    patterns = model.attention(PROMPTS, layer=0)
    assert patterns.shape == (3, oracle.config["n_head"], 7, 7)
    for number, prompt in enumerate(PROMPTS):
        oracle.run(prompt)
        close(patterns[number, :, : len(prompt), : len(prompt)], oracle.patterns[0])
        assert not patterns[number, :, len(prompt) :].any()


def test_greedy_generation(pair):
    oracle, model = pair
    tokens = [1, 2, 3]
    for _ in range(6):
        tokens.append(int(oracle.run(tokens)[0][-1].argmax()))
    assert model.generate([1, 2, 3], max_new_tokens=6, temperature=0).tolist() == tokens


class OnlyDlpack:
    """An array of a library that numpy knows nothing of."""

    def __init__(self, array):
        self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__


@pytest.mark.parametrize("variant", ["dlpack", "tensor", "int32", "matrix", "tuple"])
def test_ids_in_any_form(pair, variant):
    _, model = pair
    ids = [3, 1, 2]
    forms = {
        "dlpack": OnlyDlpack(np.array(ids)),
        "tensor": torch.tensor(ids),
        "int32": np.int32(ids),
        "matrix": np.array([ids], dtype=np.uint16),
        "tuple": tuple(np.int64(ids)),
    }
    np.testing.assert_array_equal(model.run(forms[variant]), model.run(ids))


def test_next_tokens(pair):
    oracle, model = pair
    expected = oracle.run(PROMPTS[0])[0][-1].softmax(-1)
    rows = model.next_tokens(PROMPTS[0], top=3)
    assert [row["token"] for row in rows] == expected.topk(3).indices.tolist()
    assert [row["probability"] for row in rows] == pytest.approx(expected.topk(3).values.tolist(), abs=1e-5)


def test_a_saved_model_opens_with_the_same_numbers(pair, tmp_path):
    _, model = pair
    model.save(tmp_path / "saved")
    again = gs.load(tmp_path / "saved", device="cpu")
    assert again.hash == model.hash
    assert again.config == model.config
    close(again.run(PROMPTS), model.run(PROMPTS), 1e-5)


def test_state_dict_round_trip(pair):
    oracle, model = pair
    state = model.to_torch_state_dict()
    for name, value in oracle.state.items():
        if name in state:
            assert torch.equal(state[name].double(), value.float().double()), name
    again = gs.from_state_dict(dict(model.config), state, device="cpu")
    assert again.hash == model.hash

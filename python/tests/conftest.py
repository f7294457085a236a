"""Models that the tests share."""

import pytest
import reference

import gossamer as gs

VARIANTS = {
    "plain": {},
    "tied": {"tied_unembed": True},
    "rms, no biases": {"rms_norm": True, "bias": False},
    "relu and AbsTopK": {"activation_type": "relu", "afrac": 0.25},
    "AbsTopK everywhere": {
        "afrac": 0.5,
        "afrac_loctypes": "attn_in,attn_q,attn_k,attn_v,attn_out,mlp_in,mlp_neuron,mlp_out,resid_post_attn,resid_post_mlp",
    },
    "positions aside": {"d_pos_emb": 6, "rms_norm": True},
    "sink and bigrams": {"sink": True, "enable_bigram_table": True},
    "relu stream": {"residual_activation_type": "relu", "ln_bias": False},
    "odd shapes": {"n_head": 3, "d_head": 5, "d_model": 7, "d_mlp": 1, "n_layer": 3, "vocab_size": 11},
}
PROMPTS = [[1, 2, 3, 4, 5, 6, 7], [8], [9, 10, 3, 3]]


# The GPU device runs the same code above the kernels: three variants there, all on the CPU.
ON_GPU = ("relu and AbsTopK", "positions aside", "sink and bigrams")


@pytest.fixture(params=[("cpu", name) for name in VARIANTS] + [("gpu", name) for name in ON_GPU], ids="-".join)
def pair(request):
    """A model of each variant, as the oracle and as ours."""
    device, name = request.param
    config = reference.config(**VARIANTS[name])
    state = reference.state_dict(config, seed=len(name))
    return reference.Reference(config, state), gs.from_state_dict(config, state, device=device)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A small model that was trained, with its tokenizer."""
    settings = {
        "n_layer": 1,
        "d_model": 32,
        "n_head": 2,
        "d_head": 8,
        "d_mlp": 64,
        "block_size": 64,
        "vocab_size": 320,
        "data.generated_documents": 200,
        "data.val_fraction": 0.1,
        "batch_size": 8,
        "log_every": 1,
        "checkpoint_every": 20,
        "samples": 0,
    }
    folder = tmp_path_factory.mktemp("run") / "small"
    return gs.train(settings=settings, steps=20, out=folder, device="cpu", progress=False)

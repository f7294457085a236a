"""gossamer's Python package against TransformerLens on the CPU: the same model, the same prompts, in turn.

Needs an environment with transformer_lens and gossamer: `python benches/peers/python_side.py`. Prints a table of medians in milliseconds.
"""

import statistics
import sys
import time

import numpy as np
import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

import gossamer as gs

torch.set_num_threads(2)
torch.set_grad_enabled(False)
# The shapes of the quickstart model.
L, D, H, DH, M, V, T = 2, 128, 8, 16, 512, 512, 128
config = {
    "n_layer": L, "d_model": D, "n_head": H, "d_head": DH, "d_mlp": M, "vocab_size": V, "block_size": T,
    "activation_type": "gelu", "tied_unembed": False,
}  # fmt: skip
ours = gs.new_model(config, seed=1, device="cpu")
w = ours.to_torch_state_dict()
theirs = HookedTransformer(
    HookedTransformerConfig(
        n_layers=L, d_model=D, n_heads=H, d_head=DH, d_mlp=M, d_vocab=V, n_ctx=T, act_fn="gelu", normalization_type="LN",
        default_prepend_bos=False, seed=0, device="cpu",
    )
)  # fmt: skip

state = {}
state["embed.W_E"] = w["transformer.wte.weight"]
state["pos_embed.W_pos"] = w["transformer.wpe.weight"]
state["unembed.W_U"] = w["lm_head.weight"].T
state["unembed.b_U"] = w.get("final_logits_bias", torch.zeros(V))
state["ln_final.w"], state["ln_final.b"] = w["transformer.ln_f.weight"], w["transformer.ln_f.bias"]
for i in range(L):
    h, b = f"transformer.h.{i}", f"blocks.{i}"
    for n in (1, 2):
        state[f"{b}.ln{n}.w"], state[f"{b}.ln{n}.b"] = w[f"{h}.ln_{n}.weight"], w[f"{h}.ln_{n}.bias"]
    for name, matrix, bias in zip("QKV", w[f"{h}.attn.c_attn.weight"].chunk(3), w[f"{h}.attn.c_attn.bias"].chunk(3)):
        state[f"{b}.attn.W_{name}"] = matrix.reshape(H, DH, D).transpose(1, 2)
        state[f"{b}.attn.b_{name}"] = bias.reshape(H, DH)
    state[f"{b}.attn.W_O"] = w[f"{h}.attn.c_proj.weight"].T.reshape(H, DH, D)
    state[f"{b}.attn.b_O"] = w[f"{h}.attn.c_proj.bias"]
    state[f"{b}.mlp.W_in"], state[f"{b}.mlp.b_in"] = w[f"{h}.mlp.c_fc.weight"].T, w[f"{h}.mlp.c_fc.bias"]
    state[f"{b}.mlp.W_out"], state[f"{b}.mlp.b_out"] = w[f"{h}.mlp.c_proj.weight"].T, w[f"{h}.mlp.c_proj.bias"]
theirs.load_state_dict({**theirs.state_dict(), **state})

random = np.random.default_rng(0)
short = random.integers(0, V, (1, 8))
many = random.integers(0, V, (1000, 32))
np.testing.assert_allclose(ours.run(short), theirs(torch.tensor(short)).numpy(), atol=1e-4)


def cached(ids):
    logits, cache = ours.run_with_cache(ids)
    return logits, [cache[site] for site in cache]


cases = {
    "run_with_cache, 8 tokens, every site": (lambda: cached(short), lambda: theirs.run_with_cache(torch.tensor(short))),
    "run_with_cache, 8 tokens, one site": (
        lambda: ours.run_with_cache(short, sites=["final_resid"])[1]["final_resid"],
        lambda: theirs.run_with_cache(torch.tensor(short), names_filter="blocks.1.hook_resid_post"),
    ),
    "run, 1,000 prompts of 32 tokens": (lambda: ours.run(many), lambda: theirs(torch.tensor(many))),
    "hook that doubles an MLP, 8 tokens": (
        lambda: ours.run_with_hooks(short, {"0.mlp.post_act": lambda a, site: a * 2}),
        lambda: theirs.run_with_hooks(
            torch.tensor(short), fwd_hooks=[("blocks.0.mlp.hook_post", lambda a, hook: a * 2)]
        ),
    ),
}


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


print(f"{'milliseconds (medians)':42} {'gossamer':>9} {'TransformerLens':>16}  ratio")
for name, (mine, other) in cases.items():
    rounds = 5 if "1,000" in name else 100
    times = [(seconds(mine), seconds(other)) for _ in range(rounds + 2)][2:]
    a, b = (1e3 * statistics.median(side) for side in zip(*times))
    print(f"{name:42} {a:9.2f} {b:16.2f}  {b / a:5.1f}")
    sys.stdout.flush()

"""Makes the folders of other people's models in this folder, and the golden case forward/gpt_neo.

    python tests/data/foreign/make.py

Needs torch, transformers and safetensors. Logits are transformers' in float64. The golden case is
computed by plain PyTorch in float64, and its logits are compared with transformers'.
"""

import json
import math
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoConfig, GPTNeoForCausalLM

HERE = Path(__file__).parent
GOLDEN = HERE.parent.parent / "golden/forward/gpt_neo"


def randomise(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            is_norm = ".ln_" in name and name.endswith("weight")
            parameter.copy_(1 + 0.3 * values if is_norm else 0.3 * values)
    return model.eval()


def tokens_of(model, shape, seed):
    return torch.randint(model.config.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def write(name, model, **options):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, **options)
    (folder / "generation_config.json").unlink(missing_ok=True)
    tokens = tokens_of(model, (2, model.config.max_position_embeddings), 5)
    with torch.no_grad():
        logits = model.double()(tokens).logits.float()
    model.float()
    save_file({"tokens": tokens.int(), "logits": logits}, folder / "expected.safetensors")
    return folder


def masks(layers, middle, size):
    mask = torch.tril(torch.ones(size, size, dtype=torch.bool)).view(1, 1, size, size)
    names = [f"h.{layer}.{middle}" for layer in range(layers)]
    return {f"{n}bias": mask.clone() for n in names} | {f"{n}masked_bias": torch.tensor(-1e9) for n in names}


def gpt2():
    config = GPT2Config(vocab_size=23, n_positions=9, n_embd=10, n_layer=2, n_head=2, n_inner=7, layer_norm_epsilon=1e-3)
    folder = write("gpt2", randomise(GPT2LMHeadModel(config), 1))
    # As the oldest files have it: no prefix, and the masks among the weights.
    path = folder / "model.safetensors"
    state = {name.removeprefix("transformer."): value for name, value in load_file(path).items()}
    save_file(state | masks(2, "attn.", 9), path, metadata={"format": "pt"})

    config = GPT2Config(
        vocab_size=23,
        n_positions=6,
        n_embd=5,
        n_layer=3,
        n_head=1,
        activation_function="relu",
        scale_attn_by_inverse_layer_idx=True,
        scale_attn_weights=False,
        tie_word_embeddings=False,
    )
    write("gpt2_sharded", randomise(GPT2LMHeadModel(config), 2), max_shard_size="2KB")


def neo_config(**changes):
    fields = {"vocab_size": 23, "max_position_embeddings": 12, "hidden_size": 8, "num_layers": 2, "num_heads": 2}
    fields |= {"attention_types": [[["global", "local"], 1]], "window_size": 3}
    return GPTNeoConfig(**fields | changes)


def gpt_neo():
    model = randomise(GPTNeoForCausalLM(neo_config()), 3)
    folder = write("gpt_neo", model)
    (folder / "model.safetensors").unlink()
    buffers = {f"transformer.{name}": value for name, value in masks(2, "attn.attention.", 12).items()}
    torch.save(model.state_dict() | buffers, folder / "pytorch_model.bin")


def golden():
    """The model, its inputs, and what comes out, each site and gradient in float64."""
    fields = {"vocab_size": 40, "max_position_embeddings": 14, "hidden_size": 16, "intermediate_size": 24}
    model = randomise(GPTNeoForCausalLM(neo_config(**fields, layer_norm_epsilon=1e-3)), 4).double()
    state = {name: value.detach() for name, value in model.state_dict().items()}
    layers, heads, window, eps = 2, 2, 3, 1e-3
    weights = {}
    for name, value in state.items():
        if ".attn.attention." not in name:
            weights[name] = value
    for i in range(layers):
        theirs, ours = f"transformer.h.{i}.attn.attention.", f"transformer.h.{i}.attn."
        weights[f"{ours}c_attn.weight"] = torch.cat([state[f"{theirs}{part}_proj.weight"] for part in "qkv"])
        weights[f"{ours}c_attn.bias"] = torch.zeros(48, dtype=torch.float64)
        weights[f"{ours}c_proj.weight"] = state[f"{theirs}out_proj.weight"]
        weights[f"{ours}c_proj.bias"] = state[f"{theirs}out_proj.bias"]
    weights["final_logits_bias"] = torch.zeros(40, dtype=torch.float64)
    weights["lm_head.weight"] = weights["transformer.wte.weight"]
    leaves = {name: value.clone().requires_grad_() for name, value in weights.items() if name != "lm_head.weight"}
    sites = {}

    def site(name, value):
        value.retain_grad()
        sites[name] = value
        return value

    def linear(name, x):
        return x @ leaves[f"{name}.weight"].T + leaves[f"{name}.bias"]

    def norm(name, x):
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + eps).rsqrt()
        return centred * scale * leaves[f"{name}.weight"] + leaves[f"{name}.bias"]

    tokens = tokens_of(model, (2, 14), 6)
    batch, time = tokens.shape
    x = leaves["transformer.wte.weight"][tokens] + leaves["transformer.wpe.weight"][:time]
    for i in range(layers):
        name = f"transformer.h.{i}"
        x = site(f"{i}.resid_in", x)
        h = site(f"{i}.attn.act_in", norm(f"{name}.ln_1", x))
        qkv = linear(f"{name}.attn.c_attn", h).split(16, -1)
        q, k, v = (site(f"{i}.attn.{part}", value) for part, value in zip("qkv", qkv))
        q, k, v = (value.view(batch, time, heads, 8).transpose(1, 2) for value in (q, k, v))
        behind = torch.arange(time)[:, None] - torch.arange(time)
        seen = (behind >= 0) & ((behind < window) if i % 2 else True)
        pattern = (q @ k.transpose(2, 3)).masked_fill(~seen, -math.inf).softmax(-1)
        y = site(f"{i}.attn.y", (pattern @ v).transpose(1, 2).reshape(batch, time, 16))
        x = x + site(f"{i}.attn.resid_delta", linear(f"{name}.attn.c_proj", y))
        x = site(f"{i}.resid_mid", x)
        h = site(f"{i}.mlp.act_in", norm(f"{name}.ln_2", x))
        h = linear(f"{name}.mlp.c_fc", h)
        h = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
        h = site(f"{i}.mlp.post_act", h)
        x = x + site(f"{i}.mlp.resid_delta", linear(f"{name}.mlp.c_proj", h))
    x = site("final_resid", x)
    logits = norm("transformer.ln_f", x) @ leaves["transformer.wte.weight"].T + leaves["final_logits_bias"]
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    with torch.no_grad():
        # Transformers computes its scores in float32.
        assert (model(tokens).logits - logits).abs().max() < 1e-5 * (1 + logits.abs().max())

    GOLDEN.mkdir(exist_ok=True)
    float32 = lambda tensors: {name: value.detach().float().contiguous().clone() for name, value in tensors.items()}
    save_file(float32(weights), GOLDEN / "model.safetensors")
    save_file({"tokens": tokens}, GOLDEN / "inputs.safetensors")
    expected = {"logits": logits, "loss": loss.view(1)}
    expected |= {f"act/{name}": value for name, value in sites.items()}
    expected |= {f"act_grad/{name}": value.grad for name, value in sites.items()}
    expected |= {f"grad/{name}": value.grad for name, value in leaves.items() if name != "final_logits_bias"}
    save_file(float32(expected), GOLDEN / "expected.safetensors")
    meta = {"batch": batch, "seq": time, "loss": loss.item(), "min_topk_gap": 1.0, "nonzero_density": None}
    (GOLDEN / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")
    config = {"block_size": 14, "vocab_size": 40, "n_layer": 2, "n_head": 2, "d_model": 16, "d_mlp": 24}
    config |= {"activation_type": "gelu_tanh", "ln_eps": eps, "scale_attn_weights": False}
    config |= {"attention_layers": "global,local", "window_size": window, "tied_unembed": True}
    (GOLDEN / "beeg_config.json").write_text(json.dumps(config, indent=1) + "\n")


if __name__ == "__main__":
    gpt2()
    gpt_neo()
    golden()

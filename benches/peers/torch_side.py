"""PyTorch's side of `benches/peers/torch`: the same model and step, written plainly.

`torch_side.py FOLDER WHAT` reads what `cargo bench --bench peer -- prepare FOLDER` wrote and prints one JSON line; WHAT is `loss`, `step`,
`evaluate` or `generate`.
"""

import json
import math
import statistics
import sys
import time
import tomllib

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

torch.set_num_threads(2)
folder, what = sys.argv[1:]
settings = tomllib.load(open(f"{folder}/run.toml", "rb"))
m, t, s = settings["model"], settings["train"], settings["sparsity"]
tokens = torch.tensor(json.load(open(f"{folder}/tokens.json"))).view(t["batch_size"], m["block_size"])
w = {name: tensor.float() for name, tensor in load_file(f"{folder}/model.safetensors").items()}
heads, width = m["n_head"], m["d_head"]


def abs_topk(x):
    k = math.floor(m["afrac"] * x.shape[-1])
    kept = torch.zeros_like(x).scatter_(-1, x.abs().topk(k, dim=-1).indices, 1.0)
    return x * kept


def norm(x, name):
    return F.rms_norm(x, x.shape[-1:], w[f"{name}.weight"], torch.finfo(torch.float32).eps)


def linear(x, name):
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def forward(ids):
    b, n = ids.shape
    x = w["transformer.wte.weight"][ids]
    for i in range(m["n_layer"]):
        layer = f"transformer.h.{i}"
        h = abs_topk(norm(x, f"{layer}.ln_1"))
        q, k, v = (abs_topk(part) for part in linear(h, f"{layer}.attn.c_attn").chunk(3, dim=-1))
        q, k, v = (part.view(b, n, heads, width).transpose(1, 2) for part in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y.transpose(1, 2).reshape(b, n, heads * width)
        x = x + abs_topk(linear(y, f"{layer}.attn.c_proj"))
        h = abs_topk(norm(x, f"{layer}.ln_2"))
        h = abs_topk(F.gelu(linear(h, f"{layer}.mlp.c_fc")))
        x = x + abs_topk(linear(h, f"{layer}.mlp.c_proj"))
    logits = F.linear(norm(x, "transformer.ln_f"), w["lm_head.weight"]) + w["final_logits_bias"]
    return logits + w["bigram_table"][ids]


def loss(reduction="mean"):
    logits = forward(tokens)
    return F.cross_entropy(logits[:, :-1].reshape(-1, m["vocab_size"]), tokens[:, 1:].reshape(-1), reduction=reduction)


class Step:
    """Gradients scaled by their root-mean-square, Adam, weight top-k with min-alive, decay."""

    def __init__(self):
        self.trained = [n for n in w if n not in ("transformer.wpe.weight", "final_logits_bias")]
        for name in self.trained:
            w[name].requires_grad_()
        self.m = {n: torch.zeros_like(w[n]) for n in self.trained}
        self.v = {n: torch.zeros_like(w[n]) for n in self.trained}
        self.count = 0

    def density(self, name):
        if name in ("transformer.wte.weight", "lm_head.weight"):
            return s["embed_target_density"]
        return s["target_density"] if ".c_" in name and name.endswith("weight") else None

    def __call__(self):
        loss().backward()
        self.count += 1
        lr, b1, b2 = 1e-3, t["beta1"], t["beta2"]
        with torch.no_grad():
            grads = [w[n].grad for n in self.trained]
            squares = sum(g.square().sum() for g in grads)
            scale = 1 / (torch.sqrt(squares / sum(g.numel() for g in grads)) + 1e-5)
            c1, c2 = 1 - b1**self.count, 1 - b2**self.count
            torch._foreach_mul_(grads, scale)
            weights = [w[n] for n in self.trained]
            ms, vs = [self.m[n] for n in self.trained], [self.v[n] for n in self.trained]
            torch._foreach_lerp_(ms, grads, 1 - b1)
            torch._foreach_mul_(vs, b2)
            torch._foreach_addcmul_(vs, grads, grads, 1 - b2)
            down = torch._foreach_div(vs, c2)
            torch._foreach_sqrt_(down)
            torch._foreach_add_(down, t["eps"])
            torch._foreach_addcdiv_(weights, ms, down, -lr / c1)
            for name in self.trained:
                density, weight = self.density(name), w[name]
                if density is not None and density < 1:
                    rank = weight.abs()
                    if ".c_" in name:
                        dim = 0 if "c_proj" in name else 1
                        first = rank.topk(s["min_alive"], dim=dim).indices
                        rank = rank.scatter(dim, first, math.inf)
                    kept = rank.flatten().topk(math.floor(density * weight.numel())).indices
                    mask = torch.zeros(weight.numel()).scatter_(0, kept, 1.0).view_as(weight)
                    weight.mul_(mask)
                if weight.dim() == 2 and name != "bigram_table":
                    weight.mul_(1 - t["weight_decay"] * lr)
                weight.grad = None


def seconds(run, runs, warm=1):
    for _ in range(warm):
        run()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return {"seconds": statistics.median(times)}


@torch.no_grad()
def evaluate():
    loss()


@torch.no_grad()
def generate(count=16):
    """As the published code has it: the whole context anew for every token."""
    ids = tokens.flatten()[None, :count]
    for _ in range(count):
        logits = forward(ids[:, -m["block_size"] :])
        ids = torch.cat([ids, logits[:, -1].argmax(-1, keepdim=True)], dim=1)


match what:
    case "loss":
        with torch.no_grad():
            # A sequence's last token has nothing to predict.
            losses = F.pad(loss("none").view(len(tokens), -1), (0, 1))
            print(json.dumps({"loss": loss().item(), "losses": losses.flatten().tolist()}))
    case "step":
        print(json.dumps(seconds(Step(), 3)))
    case "evaluate":
        print(json.dumps(seconds(evaluate, 3)))
    case "generate":
        print(json.dumps(seconds(generate, 3)))

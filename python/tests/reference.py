"""The model in plain PyTorch, float64: nothing but the formulas, to compare with."""

import math

import torch
import torch.nn.functional as F

DEFAULTS = {
    "block_size": 16,
    "vocab_size": 40,
    "n_layer": 2,
    "n_head": 2,
    "d_head": 4,
    "d_model": 12,
    "d_mlp": 20,
    "bias": True,
    "ln_bias": True,
    "rms_norm": False,
    "activation_type": "gelu",
    "residual_activation_type": "identity",
    "afrac": None,
    "afrac_loctypes": "attn_in,attn_out,mlp_in,mlp_out",
    "tied_unembed": False,
    "enable_bigram_table": False,
    "d_pos_emb": None,
    "sink": False,
}


def config(**changes):
    return {**DEFAULTS, **changes}


def state_dict(config, seed=0, density=0.5):
    """Random parameters; matrices have zeros."""
    random = torch.Generator().manual_seed(seed)
    c = config
    d, heads, width, mlp = c["d_model"], c["n_head"], c["n_head"] * c["d_head"], c["d_mlp"]
    d_in = d + (c["d_pos_emb"] or 0)

    def normal(*shape, mean=0.0, scale=0.3):
        return mean + scale * torch.randn(*shape, generator=random)

    def matrix(*shape):
        return normal(*shape) * (torch.rand(*shape, generator=random) < density)

    def norm(name, bias):
        state[f"{name}.weight"] = normal(d, mean=1.0)
        if bias and c["ln_bias"] and not c["rms_norm"]:
            state[f"{name}.bias"] = normal(d)

    def linear(name, out, into):
        state[f"{name}.weight"] = matrix(out, into)
        if c["bias"]:
            state[f"{name}.bias"] = normal(out)

    state = {"transformer.wte.weight": normal(c["vocab_size"], d)}
    state["transformer.wpe.weight"] = normal(c["block_size"], c["d_pos_emb"] or d)
    for i in range(c["n_layer"]):
        h = f"transformer.h.{i}"
        norm(f"{h}.ln_1", True)
        norm(f"{h}.ln_2", True)
        linear(f"{h}.attn.c_attn", 3 * width, d_in)
        linear(f"{h}.attn.c_proj", d, width)
        linear(f"{h}.mlp.c_fc", mlp, d_in)
        linear(f"{h}.mlp.c_proj", d, mlp)
        if c["sink"]:
            state[f"{h}.attn.attn_imp.sink_logit"] = normal(heads)
        if c["d_pos_emb"]:
            for name in ("ln_p1", "ln_p2"):
                state[f"{h}.{name}.weight"] = normal(c["d_pos_emb"], mean=1.0)
    norm("transformer.ln_f", True)
    state["lm_head.weight"] = state["transformer.wte.weight"] if c["tied_unembed"] else normal(c["vocab_size"], d)
    state["final_logits_bias"] = normal(c["vocab_size"])
    if c["enable_bigram_table"]:
        state["bigram_table"] = normal(c["vocab_size"], c["vocab_size"])
    return state


class Reference:
    """`run` gives logits (T, V) of one prompt and the activations (T, width) at every site."""

    def __init__(self, config, state):
        self.config = config
        self.state = {name: torch.as_tensor(value).double() for name, value in state.items()}

    def run(self, tokens, hooks=None):
        self.hooks, self.sites = hooks or {}, {}
        c = self.config
        tokens = torch.as_tensor(tokens)
        x = self.state["transformer.wte.weight"][tokens]
        self.positions = self.state["transformer.wpe.weight"][: len(tokens)]
        if c["d_pos_emb"] is None:
            x = x + self.positions
        for i in range(c["n_layer"]):
            x = self.site(f"{i}.resid_in", x)
            x = self.act(x + self.attention(i, self.sublayer_input(i, "ln_1", "ln_p1", "attn", x)))
            x = self.site(f"{i}.resid_mid", self.topk("resid_post_attn", x))
            x = self.act(x + self.mlp(i, self.sublayer_input(i, "ln_2", "ln_p2", "mlp", x)))
            x = self.topk("resid_post_mlp", x)
        x = self.site("final_resid", x)
        logits = self.norm("transformer.ln_f", x) @ self.state["lm_head.weight"].T + self.state["final_logits_bias"]
        if c["enable_bigram_table"]:
            logits = logits + self.state["bigram_table"][tokens]
        return logits, self.sites

    def site(self, name, value):
        if name in self.hooks:
            value = self.hooks[name](value)
        if value.requires_grad is False:
            value = value.clone().requires_grad_()
        value.retain_grad()
        self.sites[name] = value
        return value

    def topk(self, place, x):
        c = self.config
        if c["afrac"] is None or place not in c["afrac_loctypes"].split(","):
            return x
        kept = math.floor(c["afrac"] * x.shape[-1])
        mask = torch.zeros_like(x).scatter(-1, x.abs().topk(kept, dim=-1).indices, 1.0)
        return x * mask

    def act(self, x):
        return F.relu(x) if self.config["residual_activation_type"] == "relu" else x

    def norm(self, name, x):
        weight = self.state[f"{name}.weight"]
        if self.config["rms_norm"]:
            return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1.1920929e-7) * weight
        return F.layer_norm(x, x.shape[-1:], weight, self.state.get(f"{name}.bias"), 1e-5)

    def linear(self, name, x):
        out = x @ self.state[f"{name}.weight"].T
        return out + self.state[f"{name}.bias"] if f"{name}.bias" in self.state else out

    def sublayer_input(self, i, norm, position_norm, sublayer, x):
        h = self.norm(f"transformer.h.{i}.{norm}", x)
        if self.config["d_pos_emb"]:
            h = torch.cat([h, self.norm(f"transformer.h.{i}.{position_norm}", self.positions)], -1)
        return self.site(f"{i}.{sublayer}.act_in", self.topk(f"{sublayer}_in", h))

    def attention(self, i, x):
        c, name = self.config, f"transformer.h.{i}.attn"
        parts = self.linear(f"{name}.c_attn", x).chunk(3, -1)
        q, k, v = (self.site(f"{i}.attn.{p}", self.topk(f"attn_{p}", part)) for p, part in zip("qkv", parts))
        length, heads = len(x), c["n_head"]
        q, k, v = (part.view(length, heads, -1).transpose(0, 1) for part in (q, k, v))
        scores = q @ k.transpose(1, 2) / math.sqrt(c["d_head"])
        scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -math.inf)
        if c["sink"]:
            sink = self.state[f"{name}.attn_imp.sink_logit"][:, None, None].expand(-1, length, 1)
            scores = torch.cat([scores, sink], -1)
        pattern = scores.softmax(-1)[..., :length]
        self.patterns = getattr(self, "patterns", {}) | {i: pattern}
        y = self.site(f"{i}.attn.y", (pattern @ v).transpose(0, 1).reshape(length, -1))
        return self.site(f"{i}.attn.resid_delta", self.topk("attn_out", self.linear(f"{name}.c_proj", y)))

    def mlp(self, i, x):
        h = self.linear(f"transformer.h.{i}.mlp.c_fc", x)
        h = F.gelu(h) if self.config["activation_type"] == "gelu" else F.relu(h)
        h = self.site(f"{i}.mlp.post_act", self.topk("mlp_neuron", h))
        return self.site(f"{i}.mlp.resid_delta", self.topk("mlp_out", self.linear(f"transformer.h.{i}.mlp.c_proj", h)))


def loss(logits, tokens):
    """Mean cross-entropy of all tokens but the first."""
    return F.cross_entropy(logits[:-1], torch.as_tensor(tokens)[1:])

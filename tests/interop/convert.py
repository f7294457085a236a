"""What `gossamer convert` writes, opened by PyTorch and transformers: the same numbers and texts.

    python tests/interop/convert.py --gossamer target/release/gossamer

Needs torch, transformers and safetensors.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "python/tests"))
import reference  # noqa: E402

PROMPT = "def f(xs):\n    return [x for x in xs]\n\nprint('"
# In the reference's terms; a vocabulary of the tokenizer's size and a context for 40 more tokens.
COMMON = {"vocab_size": 512, "block_size": 96, "d_model": 32, "d_head": 8, "n_head": 4, "d_mlp": 64}
MODELS = {
    "paper": {"rms_norm": True, "afrac": 0.25, "enable_bigram_table": True,
              "afrac_loctypes": "attn_in, attn_q,attn_k,attn_v,attn_out,mlp_in,mlp_neuron,mlp_out"},
    "dense": {"tied_unembed": True},
    "sink": {"rms_norm": True, "sink": True, "ln_bias": False},
    "positions": {"d_pos_emb": 6, "rms_norm": True, "activation_type": "relu", "residual_activation_type": "relu"},
}


def gossamer(*arguments):
    command = [str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def write_published(folder, config, state):
    """A published folder as torch writes it."""
    folder.mkdir()
    (folder / "beeg_config.json").write_text(json.dumps(config))
    torch.save(state, folder / "final_model.pt")
    (folder / "tokenizer.json").write_bytes((folder.parent / "example/tokenizer.json").read_bytes())


def greedy(logits_of, ids, count):
    ids = list(ids)
    for _ in range(count):
        ids.append(int(logits_of(ids)[-1].argmax()))
    return ids


class Config(transformers.PretrainedConfig):
    model_type = "circuitgpt"


class Tree(torch.nn.Module):
    """Parameters under the names of a state dict."""

    def __init__(self, shapes):
        super().__init__()
        for name, shape in shapes.items():
            module, *path = self, *name.split(".")
            *above, last = path
            for part in above:
                if part not in module._modules:
                    module.add_module(part, torch.nn.Module())
                module = module._modules[part]
            module.register_parameter(last, torch.nn.Parameter(torch.empty(shape)))


class Published(transformers.PreTrainedModel, transformers.GenerationMixin):
    """A stand-in for the published modelling code, which is on the Hub: its class's name for the model
    inside (`circuit_model`), and the published names in it. The arithmetic is the reference's."""

    config_class = Config
    shapes = {}

    def __init__(self, config):
        super().__init__(config)
        self.circuit_model = Tree(Published.shapes)
        self.post_init()

    def _init_weights(self, module):
        for parameter in module.parameters(recurse=False):
            torch.nn.init.constant_(parameter, float("nan"))

    def forward(self, input_ids, **_):
        state = dict(self.circuit_model.named_parameters())
        model = reference.Reference(self.config.to_dict(), {k: v.detach() for k, v in state.items()})
        logits = torch.stack([model.run(ids)[0] for ids in input_ids])
        return transformers.modeling_outputs.CausalLMOutput(logits=logits.detach())

    def prepare_inputs_for_generation(self, input_ids, **_):
        return {"input_ids": input_ids}


transformers.AutoConfig.register("circuitgpt", Config)
transformers.AutoModelForCausalLM.register(Config, Published)


def check(name, changes, work):
    config = reference.config(**{**COMMON, **changes})
    state = {key: value.float() for key, value in reference.state_dict(config, seed=3).items()}
    write_published(work / name, config, state)
    plain = {**config, "afrac_loctypes": config["afrac_loctypes"].replace(" ", "")}
    original = reference.Reference(plain, state)

    folder = work / f"{name}-all"
    gossamer("convert", work / name, folder)
    # The published loader: both files, strictly, mapped or not.
    loaded = torch.load(folder / "final_model.pt", weights_only=True)
    mapped = torch.load(folder / "final_model.pt", weights_only=True, mmap=True)
    assert set(loaded) == set(state), set(loaded) ^ set(state)
    for key, value in state.items():
        assert torch.equal(loaded[key], value) and torch.equal(mapped[key], value), key
    assert json.loads((folder / "beeg_config.json").read_text())["afrac_loctypes"] == plain["afrac_loctypes"]

    # transformers: the tokenizer, the configuration, the model, its generation.
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.eos_token == "<|endoftext|>", tokenizer.eos_token
    ids = tokenizer(PROMPT)["input_ids"]
    assert tokenizer.decode(ids) == PROMPT
    Published.shapes = {key: value.shape for key, value in state.items()}
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    logits = model(torch.tensor([ids])).logits[0]
    want = original.run(ids)[0].detach()
    assert torch.equal(logits, want), (logits - want).abs().max()
    text = model.generate(
        torch.tensor([ids]), max_new_tokens=40, do_sample=False, eos_token_id=None, use_cache=False
    )[0].tolist()
    assert text == greedy(lambda ids: original.run(ids)[0], ids, 40)

    # gossamer's own numbers: probabilities of the next token, and the same 40 tokens.
    report = json.loads(gossamer("run", folder, "--device", "cpu", "--prompt", PROMPT, "--top", 512, "--json"))
    worst = compare(report, want[-1].softmax(0), tokenizer)
    ours = gossamer("generate", folder, "--device", "cpu", "--prompt", PROMPT, "--max-new-tokens", 40, "--greedy")
    theirs = tokenizer.decode(text, skip_special_tokens=False)
    ends = theirs.split("<|endoftext|>")[0]
    assert ours.rstrip("\n") == ends.rstrip("\n"), (ours, ends)
    print(f"{name}: bits, logits and 40 greedy tokens equal; probabilities within {worst:.1e}")


def compare(report, probabilities, tokenizer):
    """The largest difference from the probabilities that gossamer reports, by token."""
    rows = report["next"]
    assert len(rows) == len(probabilities), len(rows)
    return max(abs(row["before"] - float(probabilities[row["token"]])) for row in rows)


def check_types(work):
    state = torch.load(work / "sink" / "final_model.pt", weights_only=True)
    for name, dtype in [("f16", torch.float16), ("bf16", torch.bfloat16)]:
        folder = work / f"sink-{name}"
        gossamer("convert", work / "sink", folder, "--to", "torch", "--dtype", name)
        assert sorted(path.name for path in folder.iterdir()) == ["beeg_config.json", "final_model.pt", "tokenizer.json"]
        loaded = torch.load(folder / "final_model.pt", weights_only=True, mmap=True)
        for key, value in state.items():
            assert torch.equal(loaded[key], value.to(dtype)), key
        folder = work / f"sink-hf-{name}"
        gossamer("convert", work / "sink", folder, "--to", "hf", "--dtype", name)
        loaded = load_file(folder / "model.safetensors")
        assert all(torch.equal(loaded[f"circuit_model.{key}"], value.to(dtype)) for key, value in state.items())
    print("f16 and bf16: rounded as torch rounds")


def check_sparse_pretrain(work):
    config = reference.config(**{**COMMON, **MODELS["sink"], "bias": True})
    state = {key: value.float() for key, value in reference.state_dict(config, seed=3).items()}
    state["final_logits_bias"].zero_()
    write_published(work / "nested", config, state)
    gossamer("convert", work / "nested", work / "nested-out", "--to", "sparse_pretrain")
    loaded = torch.load(work / "nested-out/pytorch_model.bin", weights_only=True)

    def theirs(name):
        name = name.removeprefix("transformer.").replace("attn_imp", "attn_fn")
        return f"blocks.{name[2:]}" if name.startswith("h.") else name

    want = {theirs(name): value for name, value in state.items() if name != "final_logits_bias"}
    assert set(loaded) == set(want), set(loaded) ^ set(want)
    assert all(torch.equal(loaded[name], value) for name, value in want.items())
    nested = json.loads((work / "nested-out/config.json").read_text())
    assert nested["model_config"]["n_ctx"] == 96 and nested["model_config"]["use_positional_embeddings"]
    print("sparse_pretrain: its names, its configuration, the same bits")


parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
parser.add_argument("--gossamer", type=pathlib.Path, required=True, help="the program")
PROGRAM = parser.parse_args().gossamer.resolve()
with tempfile.TemporaryDirectory() as folder:
    work = pathlib.Path(folder)
    gossamer("example", "--out", work / "example")
    for name, changes in MODELS.items():
        check(name, changes, work)
    check_types(work)
    check_sparse_pretrain(work)

"""Opens models that Hugging Face's transformers makes, and compares what gossamer computes with what
transformers does: `gpt2` and `gpt_neo` folders with random weights, in many configurations and kinds
of files.

    python tests/interop/models.py --gossamer target/release/gossamer

Needs torch, transformers, tokenizers and safetensors. Prints a line a model; ends with 1 if any differs.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoConfig, GPTNeoForCausalLM

TOLERANCE = 2e-5

GPT2 = [
    {},
    {"n_layer": 1, "n_head": 1, "n_embd": 7},
    {"n_layer": 3, "n_head": 5, "n_embd": 15, "n_inner": 9},
    {"activation_function": "gelu"},
    {"activation_function": "relu"},
    {"activation_function": "gelu_pytorch_tanh"},
    {"activation_function": "gelu_fast"},
    {"layer_norm_epsilon": 1e-3},
    {"layer_norm_epsilon": 1e-8},
    {"tie_word_embeddings": False},
    {"scale_attn_weights": False},
    {"scale_attn_by_inverse_layer_idx": True, "n_layer": 3},
    {"scale_attn_by_inverse_layer_idx": True, "scale_attn_weights": False, "n_layer": 3},
    {"reorder_and_upcast_attn": True},
    {"n_positions": 12, "vocab_size": 31},
    {"n_embd": 128, "n_head": 2, "n_inner": 33, "n_positions": 70},
]

NEO = [
    {},
    {"num_layers": 1, "attention_types": [[["local"], 1]], "window_size": 1},
    {"num_layers": 3, "attention_types": [[["global", "local"], 1], [["local"], 1]], "window_size": 5},
    {"num_layers": 2, "attention_types": [[["local"], 2]], "window_size": 12},
    {"num_layers": 2, "attention_types": [[["local"], 2]], "window_size": 100},
    {"num_layers": 2, "attention_types": [[["global"], 2]]},
    {"hidden_size": 15, "num_heads": 3, "intermediate_size": 10},
    {"hidden_size": 7, "num_heads": 1},
    {"activation_function": "gelu"},
    {"activation_function": "relu"},
    {"layer_norm_epsilon": 1e-3},
    {"tie_word_embeddings": False},
    {"hidden_size": 64, "num_heads": 2, "max_position_embeddings": 150, "window_size": 67},
]


def gpt2(**changes):
    fields = {"vocab_size": 61, "n_positions": 24, "n_embd": 24, "n_layer": 2, "n_head": 3}
    return GPT2LMHeadModel(GPT2Config(**fields | changes))


def neo(**changes):
    fields = {"vocab_size": 61, "max_position_embeddings": 24, "hidden_size": 24, "num_layers": 2, "num_heads": 3}
    fields |= {"attention_types": [[["global", "local"], 1]], "window_size": 4}
    return GPTNeoForCausalLM(GPTNeoConfig(**fields | changes))


def randomise(model, seed):
    """No parameter at a neutral value, where a wrong rule could hide, and no scores so large that their
    rounding in float32 decides who is attended to."""
    generator, size = torch.Generator().manual_seed(seed), min(0.3, 1.2 / model.config.hidden_size**0.5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            is_norm = ".ln_" in name and name.endswith("weight")
            parameter.copy_(1 + 0.3 * values if is_norm else size * values)
    return model.eval()


def masks(model):
    """The buffers that earlier versions of the library saved among the weights."""
    size, found = model.config.max_position_embeddings, {}
    mask = torch.tril(torch.ones(size, size, dtype=torch.bool)).view(1, 1, size, size)
    middle = "attn.attention." if model.config.model_type == "gpt_neo" else "attn."
    for layer in range(model.config.num_hidden_layers):
        found[f"transformer.h.{layer}.{middle}bias"] = mask.clone()
        found[f"transformer.h.{layer}.{middle}masked_bias"] = torch.tensor(-1e4)
    return found


def folders(model, kind, folder):
    """Writes the model in one of the kinds of folders that there are."""
    if kind == "safetensors":
        model.save_pretrained(folder)
    elif kind == "sharded":
        size = sum(parameter.numel() * 4 for parameter in model.parameters())
        model.save_pretrained(folder, max_shard_size=size // 3)
        assert (folder / "model.safetensors.index.json").exists()
    elif kind == "without prefix":
        model.save_pretrained(folder)
        state = load_file(folder / "model.safetensors")
        bare = {name.removeprefix("transformer."): value for name, value in state.items()}
        save_file(bare, folder / "model.safetensors", metadata={"format": "pt"})
    elif kind == "bfloat16":
        model.to(torch.bfloat16).save_pretrained(folder)
        model.float()
    elif kind == "pytorch_model.bin":
        model.save_pretrained(folder)
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict() | masks(model), folder / "pytorch_model.bin")
    elif kind == "safetensors with masks":
        model.save_pretrained(folder)
        state = load_file(folder / "model.safetensors")
        save_file(state | masks(model), folder / "model.safetensors", metadata={"format": "pt"})
    else:
        raise ValueError(kind)


KINDS = ["safetensors", "sharded", "without prefix", "bfloat16", "pytorch_model.bin", "safetensors with masks"]


def expected(model, tokens):
    """Logits, and activations by our names of their sites, in float64."""
    model, sites, hooks = model.double(), {}, []

    def keep(name):
        def hook(_module, _inputs, output):
            sites[name] = output[0] if isinstance(output, tuple) else output

        return hook

    for i, layer in enumerate(model.transformer.h):
        parts = [("attn.act_in", layer.ln_1), ("attn.resid_delta", layer.attn), ("mlp.act_in", layer.ln_2)]
        parts += [("mlp.post_act", layer.mlp.act), ("mlp.resid_delta", layer.mlp)]
        hooks += [module.register_forward_hook(keep(f"{i}.{name}")) for name, module in parts]
        if model.config.model_type == "gpt_neo":
            attention = layer.attn.attention
            projections = [("q", attention.q_proj), ("k", attention.k_proj), ("v", attention.v_proj)]
            hooks += [module.register_forward_hook(keep(f"{i}.attn.{name}")) for name, module in projections]
    with torch.no_grad():
        out = model(tokens, output_hidden_states=True)
    for hook in hooks:
        hook.remove()
    for i, hidden in enumerate(out.hidden_states[: len(model.transformer.h)]):
        sites[f"{i}.resid_in"] = hidden
    model.float()
    return {"logits": out.logits} | sites


def difference(got, want):
    """The largest difference relative to 1 + max|x|; infinite if shapes differ or a number is not finite."""
    if got.shape != want.shape or not got.isfinite().all() or want.numel() == 0:
        return float("inf")
    return ((got.double() - want).abs().max() / (1 + want.abs().max())).item()


def compare(gossamer, folder, model, length, plant=0.0):
    """The largest difference of any activation, and whose it is."""
    vocabulary = model.config.vocab_size
    tokens = torch.randint(vocabulary, (3, length), generator=torch.Generator().manual_seed(length))
    want = expected(model, tokens)
    want["logits"] = want["logits"] + plant
    save_file({"tokens": tokens.int()}, folder / "tokens.safetensors")
    out = folder / "recorded.safetensors"
    command = [gossamer, "record", folder, "--tokens", folder / "tokens.safetensors", "--out", out, "--device", "cpu"]
    subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    got = load_file(out)
    differences = {name: difference(got[name], value) for name, value in want.items()}
    worst = max(differences, key=differences.get)
    return differences[worst], worst, len(differences)


def bytes_tokenizer(path):
    """A tokenizer of single bytes and the end of text."""
    alphabet = sorted(ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({letter: id for id, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(path))
    return tokenizer


def continued(gossamer, folder, model):
    """Whether 40 greedy tokens after a prompt are those of transformers, and both texts."""
    model.save_pretrained(folder)
    tokenizer = bytes_tokenizer(folder / "tokenizer.json")
    prompt = torch.tensor([tokenizer.encode("once upon a time").ids])
    # Keys and values are kept here too, so that a window is compared with a window.
    options = {"max_new_tokens": 40, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    want = tokenizer.decode(model.generate(prompt, **options)[0].tolist(), skip_special_tokens=False)
    want = want.split("<|endoftext|>")[0]
    command = [gossamer, "generate", folder, "--prompt", "once upon a time", "--greedy", "--max-new-tokens", 40]
    done = subprocess.run([str(part) for part in [*command, "--device", "cpu"]], check=True, capture_output=True)
    got = done.stdout.decode(errors="replace").removesuffix("\n")
    return got == want, f"{got!r} and {want!r}"


def refused(gossamer, folder, model, changes, *says):
    """Opens the model with other fields in its configuration, which must be refused by name."""
    model.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    done = subprocess.run([str(gossamer), "inspect", str(folder)], capture_output=True, text=True)
    return done.returncode != 0 and all(part in done.stderr for part in says), done.stderr.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--gossamer", type=Path, required=True, help="the program")
    gossamer = parser.parse_args().gossamer.resolve()
    failures = 0

    def result(passed, text):
        nonlocal failures
        failures += not passed
        print("ok  " if passed else "FAIL", text, flush=True)

    cases = [(gpt2, changes) for changes in GPT2] + [(neo, changes) for changes in NEO]
    with tempfile.TemporaryDirectory() as temporary:
        for number, (make, changes) in enumerate(cases):
            # Every kind of folder with the first configuration of each family, then in turn.
            kinds = KINDS if not changes else [KINDS[number % len(KINDS)]]
            for kind in kinds:
                model = randomise(make(**changes), number)
                folder = Path(temporary) / "model"
                folders(model, kind, folder)
                length = model.config.max_position_embeddings
                for length in {1, length // 2, length}:
                    try:
                        worst, where, count = compare(gossamer, folder, model, length)
                    except subprocess.CalledProcessError as error:
                        result(False, f"{make.__name__} {changes} {kind}: {error.stderr}")
                        break
                    text = f"{make.__name__} {changes} {kind}, {length} tokens: {worst:.1e} of {count} tensors, {where}"
                    result(worst <= TOLERANCE, text)
                shutil.rmtree(folder)

        for make, changes in [
            (gpt2, {"vocab_size": 257, "n_positions": 60}),
            (gpt2, {"vocab_size": 257, "n_positions": 60, "scale_attn_by_inverse_layer_idx": True}),
            (neo, {"vocab_size": 257, "max_position_embeddings": 60, "window_size": 7}),
            (neo, {"vocab_size": 257, "max_position_embeddings": 60, "window_size": 1}),
        ]:
            passed, texts = continued(gossamer, Path(temporary) / "generated", randomise(make(**changes), 7))
            result(passed, f"greedy: {make.__name__} {changes}" + ("" if passed else f": {texts}"))

        folder = Path(temporary) / "refused"
        for make, changes, says in [
            (gpt2, {"activation_function": "silu"}, ["activation_function", "silu"]),
            (gpt2, {"add_cross_attention": True}, ["add_cross_attention", "true"]),
            (gpt2, {"n_head": 5}, ["n_head", "5"]),
            (gpt2, {"model_type": "gptj"}, ["gptj"]),
            (neo, {"attention_layers": ["global", "sparse"]}, ["attention_layers", "sparse"]),
            (neo, {"attention_types": [[["local"], 2]]}, ["attention_layers", "attention_types"]),
            (neo, {"activation_function": "quick_gelu"}, ["activation_function", "quick_gelu"]),
        ]:
            passed, said = refused(gossamer, folder, make(), changes, *says)
            result(passed, f"refused: {make.__name__} {changes}: {said}")

        # The comparison sees an error.
        model = randomise(gpt2(), 1)
        model.save_pretrained(folder)
        worst, _, _ = compare(gossamer, folder, model, 5, plant=1e-3)
        result(worst > TOLERANCE, f"a planted error of 1e-3 is seen: {worst:.1e}")
    print(f"{failures} failures" if failures else "all agree")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

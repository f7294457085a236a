"""Compares ids with the Python package `tokenizers`.

    python tests/interop/token_ids.py --gossamer target/release/gossamer

Trains tokenizers of every kind that gossamer opens, encodes 1,000 varied strings with both, and
fails at the first difference. Needs the package `tokenizers`.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

CORPUS = [
    "The quick brown fox jumps over the lazy dog.",
    "Once upon a time, there was a little girl named Lily. She liked to play outside.",
    "def add(a, b):\n    return a + b  # 1234.5",
    "Schöne Grüße aus Köln, naïve café, Ærøskøbing; Łódź!",
    "中文字符和日本語のテキスト。한국어 문장",
    "It's 1,234.56 dollars -- isn't it? http://example.org/a?b=c&d=e",
    "Русский текст, ελληνικά, עברית, العربية",
]


def strings(count: int) -> list[str]:
    """Varied strings: random characters of all planes, code, blanks, scripts without blanks, emoji,
    control characters, marks, very long words."""
    draw = random.Random(7)
    ranges = [
        (0x20, 0x7E), (0x01, 0x20), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F),
        (0x2000, 0x206F), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xFF00, 0xFFEF), (0x1F300, 0x1FAFF),
        (0x20000, 0x2A6DF),
    ]  # fmt: skip
    words = " ".join(CORPUS).split(" ")

    def characters() -> str:
        low, high = draw.choice(ranges)
        return "".join(chr(draw.randint(low, high)) for _ in range(draw.randint(1, 20)))

    kinds = [
        characters,
        lambda: " ".join(draw.choices(words, k=draw.randint(1, 30))),
        lambda: draw.choice([" ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u2028"]) * draw.randint(1, 9),
        lambda: draw.choice(words) + characters(),
        lambda: draw.choice("axé中🙂") * draw.choice([50, 99, 100, 101, 300, 2000]),
        lambda: "".join(draw.choice(CORPUS)[: draw.randint(1, 40)] for _ in range(3)),
        lambda: draw.choice(["[UNK]", "[EOS]", "</s>", "<unk>", "##ing", "\u2581", "<0x0A>", "<|endoftext|>x"]),
    ]
    found = []
    while len(found) < count:
        text = "".join(draw.choice(kinds)() for _ in range(draw.randint(1, 6)))
        # A separator of documents, and texts that are skipped.
        if text.strip() and "<|endoftext|>" not in text:
            found.append(text)
    return found


def word_piece(lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[UNK]", "[CLS]", "[SEP]", "[EOS]"]
    tokenizer.train_from_iterator(
        CORPUS * 9, trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    )
    return tokenizer


def unigram(normalizer, byte_fallback: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<unk>", "</s>"]
    trainer = trainers.UnigramTrainer(vocab_size=300, unk_token="<unk>", special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS * 9, trainer)
    if byte_fallback:
        file = json.loads(tokenizer.to_str())
        file["model"]["vocab"] += [[f"<0x{byte:02X}>", -20.0] for byte in range(256)]
        file["model"]["byte_fallback"] = True
        tokenizer = Tokenizer.from_str(json.dumps(file))
        tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return tokenizer


def byte_fallback_bpe() -> Tokenizer:
    """As SentencePiece's BPE converts."""
    marks = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    base = Tokenizer(models.BPE())
    base.normalizer = marks
    base.train_from_iterator(CORPUS * 9, trainers.BpeTrainer(vocab_size=300, max_token_length=8, show_progress=False))
    model = json.loads(base.to_str())["model"]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    tokens += sorted(model["vocab"], key=model["vocab"].get)
    vocab = {token: id for id, token in enumerate(dict.fromkeys(tokens))}
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = marks
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in tokens[:3]])
    return tokenizer


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 9, trainer)
    return tokenizer


def pair(folder: Path, tokenizer: Tokenizer, vocabulary: str, merges: str) -> Path:
    """The same tokenizer as a vocabulary and a list of merges."""
    model = json.loads(tokenizer.to_str())["model"]
    folder.mkdir()
    (folder / vocabulary).write_text(json.dumps(model["vocab"]), encoding="utf-8")
    lines = ["#version: 0.2"] + [" ".join(merge) for merge in model["merges"]]
    (folder / merges).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def ids_of(gossamer: str, tokenizer: Path, texts: Path) -> list[list[int]]:
    command = [gossamer, "tokenize", str(tokenizer), "--data", str(texts), "--ids"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in out.splitlines()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gossamer", default=os.environ.get("GOSSAMER", "gossamer"))
    arguments = parser.parse_args()
    nfkc = normalizers.NFKC()
    kinds = {
        "WordPiece, lower case": word_piece(True),
        "WordPiece, cased": word_piece(False),
        "Unigram": unigram(None, False),
        "Unigram, NFKC": unigram(nfkc, False),
        "Unigram, byte fallback": unigram(nfkc, True),
        "BPE, byte fallback": byte_fallback_bpe(),
        "BPE, byte-level": byte_level(),
    }
    texts = strings(1000)
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = folder / "texts.jsonl"
        lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        places = {}
        for number, (kind, tokenizer) in enumerate(kinds.items()):
            path = folder / f"{number}.json"
            tokenizer.save(str(path))
            places[kind] = (path, tokenizer)
        level = kinds["BPE, byte-level"]
        places["vocab.json, merges.txt"] = (pair(folder / "a", level, "vocab.json", "merges.txt"), level)
        places["encoder.json, vocab.bpe"] = (pair(folder / "b", level, "encoder.json", "vocab.bpe"), level)
        for kind, (path, tokenizer) in places.items():
            tokenizer.encode_special_tokens = True
            expected = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
            found = ids_of(arguments.gossamer, path, lines)
            differing = [at for at, (ours, theirs) in enumerate(zip(found, expected)) if ours != theirs]
            if len(found) != len(expected) or differing:
                wrong += 1
                where = repr(texts[differing[0]])[:200] if differing else f"{len(found)} lines"
                print(f"{kind}: DIFFERS in {len(differing)} of {len(texts)}, first {where}")
            else:
                print(f"{kind}: {len(texts)} strings, {sum(map(len, expected))} ids equal")
        # A comparison that could not fail would be none.
        planted = expected[:-1] + [expected[-1] + [0]]
        if found == planted:
            print("the comparison does not see a planted difference")
            wrong += 1
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())

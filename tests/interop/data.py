"""Compares documents with those that pyarrow and pandas write and read.

    python tests/interop/data.py --gossamer target/release/gossamer

Writes the same random texts as Parquet, CSV, TSV and JSON lines in many ways, and compares the
tokens that gossamer makes of them. Needs the packages `pyarrow`, `pandas` and `zstandard`.
"""

import argparse
import gzip
import itertools
import json
import lzma
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas
import pyarrow
import pyarrow.parquet
import zstandard


def rows(count: int) -> list[str | None]:
    """Texts with everything that has to be quoted, repeated ones, long ones, empty ones and nulls."""
    draw = random.Random(3)
    parts = ['"', "'", ",", ";", "\t", "\n", "\r\n", "é", "中", "🙂", " ", "\\", "text", "a,b", '""', "0"]

    def text() -> str | None:
        match draw.randint(0, 19):
            case 0:
                return None
            case 1:
                return ""
            case 2:
                return "the same text"
            case 3:
                return "long " * draw.randint(1000, 40_000)
            case _:
                return "".join(draw.choices(parts, k=draw.randint(1, 40)))

    return [text() for _ in range(count)]


def bytes_of(gossamer: str, tokenizer: Path, path: Path) -> list[str]:
    """The documents of a file: gossamer tokenizes them by bytes."""
    command = [gossamer, "tokenize", str(tokenizer), "--data", str(path), "--text-field", "story", "--ids"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [bytes(json.loads(line)).decode("utf-8") for line in out.splitlines()]


def byte_tokenizer(path: Path) -> Path:
    """A tokenizer whose ids are the bytes themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = itertools.count(0x100)
    vocab = {chr(byte) if byte in printable else chr(next(others)): byte for byte in range(256)}
    parts = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "vocab": vocab, "merges": []}
    file = {"version": "1.0", "added_tokens": [], "pre_tokenizer": parts, "decoder": parts, "model": model}
    for part in ("truncation", "padding", "normalizer", "post_processor"):
        file[part] = None
    path.write_text(json.dumps(file), encoding="utf-8")
    return path


def parquet_files(folder: Path, table: pyarrow.Table):
    """The table with all pages, codings and encodings that are read."""
    codings = ["none", "snappy", "gzip", "zstd"]
    for compression, dictionary, version in itertools.product(codings, [True, False], ["1.0", "2.0"]):
        path = folder / f"{compression}-{dictionary}-{version}.parquet"
        pyarrow.parquet.write_table(
            table, path, compression=compression, use_dictionary=dictionary, data_page_version=version,
            row_group_size=300, data_page_size=4096,
        )  # fmt: skip
        yield path
    for encoding in ["PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"]:
        path = folder / f"{encoding}.parquet"
        encodings = {"id": "PLAIN", "story": encoding}
        pyarrow.parquet.write_table(table, path, use_dictionary=False, column_encoding=encodings)
        yield path
    large = table.set_column(1, "story", table["story"].cast(pyarrow.large_string()))
    path = folder / "large.parquet"
    pyarrow.parquet.write_table(large, path)
    yield path


def text_files(folder: Path, texts: list[str | None]):
    frame = pandas.DataFrame({"id": range(len(texts)), "story": texts, "more": "x"})
    csv, tsv = folder / "a.csv", folder / "a.tsv"
    frame.to_csv(csv, index=False, lineterminator="\n")
    frame.to_csv(tsv, index=False, sep="\t", lineterminator="\r\n")
    lines = folder / "a.jsonl"
    lines.write_text("".join(json.dumps({"id": 1, "story": text}) + "\n" for text in texts), encoding="utf-8")
    packers = {
        "gz": gzip.compress,
        "xz": lzma.compress,
        # Several frames, one after the other.
        "zst": lambda data: b"".join(zstandard.compress(data[at : at + 99_999]) for at in range(0, len(data), 99_999)),
    }
    yield from (csv, tsv, lines)
    for path, (ending, pack) in itertools.product([csv, tsv, lines], packers.items()):
        packed = path.with_name(f"{path.name}.{ending}")
        packed.write_bytes(pack(path.read_bytes()))
        yield packed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gossamer", required=True)
    arguments = parser.parse_args()
    texts = rows(1000)
    expected = [text for text in texts if text]
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = byte_tokenizer(folder / "bytes.json")
        table = pyarrow.table({"id": range(len(texts)), "story": texts})
        for path in itertools.chain(parquet_files(folder, table), text_files(folder, texts)):
            found = bytes_of(arguments.gossamer, tokenizer, path)
            if found == expected:
                print(f"{path.name}: {len(found)} documents equal")
            else:
                wrong += 1
                at = next((i for i, (a, b) in enumerate(zip(found, expected)) if a != b), min(len(found), len(expected)))
                print(f"{path.name}: DIFFERS, {len(found)} of {len(expected)} documents, first at {at}")
        # A comparison that could not fail would be none.
        if found == expected[:-1] + ["planted"]:
            print("the comparison does not see a planted difference")
            wrong += 1
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())

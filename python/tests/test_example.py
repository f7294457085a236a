"""The example that comes with the package."""

import json

import gossamer as gs
import pytest


def test_the_example_is_a_model_with_circuits_and_bridges(tmp_path):
    folder = gs.example(tmp_path / "example")
    model = gs.load(folder, device="cpu")
    circuits = sorted(path for path in (folder / "circuits").glob("*.json") if ".statistics" not in path.name)
    assert len(circuits) >= 3
    quotes = gs.Circuit.load(folder / "circuits/single_double_quote.json")
    # The circuit's own numbers, from the model.
    recorded = json.loads((folder / "circuits/single_double_quote.json").read_text())["losses"]["test"]
    assert quotes.evaluate(model)["test"]["circuit"] == pytest.approx(recorded["circuit"], abs=1e-4)
    assert recorded["circuit"] < 0.2 < 0.6 < recorded["ablated"]
    assert (folder / "bridges.json").exists()


def test_the_cached_example_is_written_once(tmp_path, monkeypatch):
    monkeypatch.setenv("GOSSAMER_CACHE", str(tmp_path))
    first = gs.example()
    written = (first / "model.safetensors").stat().st_mtime_ns
    assert gs.example() == first and (first / "model.safetensors").stat().st_mtime_ns == written
    with pytest.raises(ValueError, match="not empty"):
        gs.example(first)


def test_a_page_has_what_the_model_adds(tmp_path):
    folder = gs.example(tmp_path / "example")
    quotes = gs.Circuit.load(folder / "circuits/single_double_quote.json")

    def data(page):
        return json.loads(page.split('type="application/json">')[1].split("</script>")[0])["circuits"][0]

    alone, whole = data(quotes.to_html()), data(quotes.to_html(gs.load(folder, device="cpu")))
    assert alone["circuit"] == whole["circuit"] and not alone["prompts"] and not alone["statistics"]
    assert len(whole["statistics"]) == len(quotes)
    prompt = whole["prompts"][0]
    assert {len(values) for values in prompt["activations"].values()} == {len(prompt["tokens"])}

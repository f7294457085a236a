"""The notebooks run, and what they show is theirs."""

import base64
import tempfile
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def test_there_are_notebooks():
    assert len(NOTEBOOKS) == 4


def test_no_cell_raises(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    resources = {"metadata": {"path": str(FOLDER)}}
    # What the cells claim, they assert.
    nbclient.NotebookClient(notebook, timeout=900, kernel_name="python3", resources=resources).execute()
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")


def test_stored_outputs_are_complete_small_and_of_no_machine(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell.metadata == {} for cell in notebook.cells)
    assert "widgets" not in notebook.metadata
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error" and output.get("name") != "stderr"
            data = output.get("data", {})
            assert len(base64.b64decode(data.get("image/png", ""))) <= 40 << 10
            texts = [output.get("text", ""), *(data.get(kind, "") for kind in ("text/plain", "text/html"))]
            assert not any(folder in text for text in texts for folder in (tempfile.gettempdir(), str(FOLDER.parents[1])))

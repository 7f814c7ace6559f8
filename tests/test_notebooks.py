"""Every notebook is the same as its script, carries outputs, and runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
REASON = "{} is not installed (the extra 'notebooks')"


def cells(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_script_and_notebook_hold_the_same_cells(path):
    jupytext = pytest.importorskip("jupytext", reason=REASON.format("jupytext"))
    assert cells(jupytext.read(path)) == cells(jupytext.read(path.with_suffix(".py")))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_was_run_from_top_to_bottom(path):
    nbformat = pytest.importorskip("nbformat", reason=REASON.format("nbformat"))
    code = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [
        output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"
    ]
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the kernel's own libraries; the cells run in another process
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_at_a_small_size(path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason=REASON.format("nbclient"))
    nbformat = pytest.importorskip("nbformat", reason=REASON.format("nbformat"))
    pytest.importorskip("ipykernel", reason=REASON.format("ipykernel"))
    monkeypatch.setenv("SPARSEJAX_QUICK", "1")
    monkeypatch.setenv("PYTHONPATH", str(path.parents[1]), prepend=os.pathsep)
    notebook = nbformat.read(path, 4)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "ultra-sparse net" in printed and "largest difference after saving" in printed

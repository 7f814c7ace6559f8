"""Every notebook is the same as its script, carries outputs, and runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
EXPECTED = {  # what is printed at a small size
    "force_field_dynamics": ("relaxed in", "squeezed to 3.3 A", "NVE,", "nearest neighbours, teacher"),
    "gguf_to_sparse_inference": ("29 of q8_0", "llama_reglu, predictor: +0.0 % with 100%", "hit rate"),
    "import_your_checkpoint": (
        "n_heads",
        "a command inside: UnsafePickleError",
        "with other weights loaded: 0",
        "bit for bit: True",
    ),
    "sprout_sparsity_and_quality": ("with all neurons", "whole blocks of 16", "Gini", "51 neurons: "),
    "ten_long_context": ("read in two parts", "state after 1,024 bytes: 8,196 bytes", "a step: "),
    "ultra_sparse_feature_selection": ("ultra-sparse net", "largest difference after saving"),
}
REASON = "{} is not installed (the extra 'notebooks')"


def cells(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def test_every_notebook_is_listed():
    assert {path.stem for path in NOTEBOOKS} == set(EXPECTED)


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
    assert [words for words in EXPECTED[path.stem] if words not in printed] == []

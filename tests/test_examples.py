"""Every example runs from the project's root, and says what it should."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXPECTED = {  # what is printed
    "batching_server.py": "Return the ",
    "feature_selection.py": "ultra-sparse net",
    "force_field_md.py": "relaxed in",
    "import_checkpoint.py": "ultra_sparse/sparse",
    "sparse_inference.py": "25% of them: Return the",
    "sparse_inference_store.py": "to all neurons on the device: ",
    "sprout_sparsity.py": "of the whole blocks: logits",
    "ten_streaming.py": "in two parts: largest difference",
    "use_with_nnx.py": "the same within float rounding",
}
ARGUMENTS = {
    "feature_selection.py": ["20"],  # rounds of the search
    "force_field_md.py": ["checkpoints/ultra_tiny_gfn2.pt", "0.02"],  # ps of dynamics
    "sparse_inference.py": ["checkpoints/llama_reglu.gguf", "40"],  # rows of text
    "sparse_inference_store.py": ["20"],  # tokens
}


def test_every_example_is_listed():
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_example_runs(name):
    path = ROOT / "examples" / name
    done = subprocess.run(
        [sys.executable, str(path), *ARGUMENTS.get(name, [])],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert EXPECTED[name] in done.stdout
    assert len(path.read_text().splitlines()) <= 120

"""The ``sparsejax`` command: every subcommand is a thin call of a public function.

Exit codes: 0 done; 1 the input was at fault, told in one line (``--debug`` shows where); 2 wrong usage;
141 nobody reads the output any more, as after ``| head``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from sparsejax.checkpoint.errors import CheckpointError
from sparsejax.cli.arguments import UserError
from sparsejax.cli.files import convert, demo, inspect, verify
from sparsejax.cli.force_field import benchmark, label, md, screen, validate
from sparsejax.cli.networks import bench, fill_mask, generate, plot, train
from sparsejax.cli.sparse_inference import calibrate, with_family
from sparsejax.version import __version__

_LIBRARIES = {
    "sklearn": ("sklearn",),
    "plots": ("matplotlib",),
    "bench": ("numba",),
    "torch": ("torch",),
    "text": ("grain", "tokenizers"),
    "force-field": ("ase", "h5py", "vesin"),
    "md": ("jax_md",),
    "distill": ("tblite",),
    "gguf": ("gguf",),
    "evolve": ("evosax",),
    "export": ("flatbuffers",),
    "onnx": ("jax2onnx", "onnxruntime"),
}
_EXTRAS = {library: extra for extra, libraries in _LIBRARIES.items() for library in libraries}


_UNREAD = 141
"""Exit code that shells give a program which wrote to a closed pipe."""

_COMMANDS: dict[str, Callable[..., Any]] = {
    "inspect": inspect,
    "convert": convert,
    "verify": verify,
    "demo": demo,
    "bench": bench,
    "train": train,
    "label": label,
    "calibrate": calibrate,
    "generate": generate,
    "fill-mask": fill_mask,
    "md": md,
    "screen": screen,
    "validate": validate,
    "benchmark": benchmark,
    "plot": plot,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the ``sparsejax`` command."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments == ["--version"]:
        print(f"sparsejax {__version__}")
        return
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered has nowhere to go, and must not be tried again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_UNREAD)
    except (CheckpointError, UserError, OSError, ModuleNotFoundError) as error:
        if debug:
            raise
        sys.exit(_told(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _run(arguments: Sequence[str]) -> None:
    tyro.extras.subcommand_cli_from_dict(
        _COMMANDS,
        prog="sparsejax",
        description="Sparse and sub-quadratic models in JAX; reads the original PyTorch files without torch. "
        "--version prints the version; --debug, with any command, shows the traceback of an error.",
        args=with_family(arguments) or ["--help"],
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )


def _told(error: Exception) -> int:
    text = " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError):
        extra = _EXTRAS.get((error.name or "").split(".")[0])
        if extra is not None:
            text = f"{text}; install the extra that has it: pip install 'sparsejax[{extra}]'"
    print(f"sparsejax: {text}", file=sys.stderr)
    return 1

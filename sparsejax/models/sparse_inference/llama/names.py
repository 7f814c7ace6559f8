"""Which tensor of a GGUF file is which parameter, and what of them a file must hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from sparsejax.checkpoint.errors import MissingKeyError, ShapeError, UnexpectedKeyError, shown
from sparsejax.models.sparse_inference.llama.config import LlamaConfig
from sparsejax.ops.quantized.planes import Order

_BLOCK = re.compile(r"blk\.(\d+)\.")


ROW_BY_ROW = ("token_embd", "ffn_gate", "ffn_up")
"""Quantised matrices of which single rows are read, tokens' and chosen neurons': their planes lie by rows. Of
the others all rows are multiplied, or of ``ffn_down`` some columns: by columns that takes a quarter less."""


class TensorPlace(NamedTuple):
    """A tensor in files and in parameters.

    Attributes:
      name: in GGUF files, such as "blk.0.ffn_down.weight".
      path: in the parameters, such as ("blk_0", "ffn_down", "weight").
      shape: in files, NumPy order: (outputs, inputs) of matrices.
      transposed: plain arrays are parameters the other way round, so that a neuron's numbers lie side by
        side; quantised ones stay as in the file, whose blocks cannot be turned.
    """

    name: str
    path: tuple[str, ...]
    shape: tuple[int, ...]
    transposed: bool = False

    @property
    def order(self) -> Order:
        """Of the planes in memory where the matrix is quantised."""
        return "rows" if self.path[-2] in ROW_BY_ROW else "columns"


def parameter_path(name: str) -> tuple[str, ...]:
    """Path in the parameters of a tensor of a GGUF file.

    Example:
      >>> parameter_path("blk.12.attn_q.weight")
      ('blk_12', 'attn_q', 'weight')
    """
    return tuple(_BLOCK.sub(r"blk_\1.", name, count=1).split("."))


def tensor_name(path: tuple[str, ...]) -> str:
    """The inverse of `parameter_path`.

    Example:
      >>> tensor_name(("blk_12", "attn_q", "weight"))
      'blk.12.attn_q.weight'
    """
    return re.sub(r"^blk_(\d+)\.", r"blk.\1.", ".".join(path))


def tensor_places(config: LlamaConfig) -> tuple[TensorPlace, ...]:
    """All tensors of a network, in the order of files.

    Args:
      config: of the network.

    Example:
      >>> config = LlamaConfig(vocab_size=9, d_model=4, d_ff=8, n_layers=1, n_heads=2, tied_output=True)
      >>> [place.name for place in tensor_places(config)][:3]
      ['token_embd.weight', 'output_norm.weight', 'blk.0.attn_norm.weight']
    """
    wide = {"token_embd.weight": (config.vocab_size, config.d_model), "output_norm.weight": (config.d_model,)}
    if not config.tied_output:
        wide["output.weight"] = (config.vocab_size, config.d_model)
    if config.rope_factors:
        wide["rope_freqs.weight"] = (config.rotary.dimension // 2,)
    for layer in range(config.n_layers):
        for name, shape in _block_shapes(config).items():
            wide[f"blk.{layer}.{name}"] = shape
    return tuple(
        TensorPlace(name, parameter_path(name), shape, name.endswith("ffn_down.weight"))
        for name, shape in wide.items()
    )


def check_tensors(config: LlamaConfig, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a file whose tensors are not exactly those of the network.

    Args:
      config: of the network.
      shapes: by tensor name, NumPy order.

    Raises:
      MissingKeyError: tensors are missing; names them.
      UnexpectedKeyError: there are tensors that the network has no use for.
      ShapeError: a tensor has another shape.
    """
    places = tensor_places(config)
    known = {place.name for place in places}
    if missing := [place.name for place in places if place.name not in shapes]:
        raise MissingKeyError(
            f"the file lacks {shown(missing)}, which a {config.architecture!r} network of {config.n_layers} "
            "blocks needs; download it again, or convert the model anew"
        )
    if unknown := [name for name in shapes if name not in known]:
        raise UnexpectedKeyError(
            f"the file has {shown(unknown)}, which a {config.architecture!r} network has no use for; "
            "it is of another architecture than its metadata say"
        )
    for place in places:
        if tuple(shapes[place.name]) != place.shape:
            raise ShapeError(
                f"{place.name!r} has shape {tuple(shapes[place.name])}; the metadata make it {place.shape}"
            )


def nested(leaves: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """A nested dict from leaves by path.

    Example:
      >>> nested({("a", "b"): 1, ("a", "c"): 2})
      {'a': {'b': 1, 'c': 2}}
    """
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        branch = tree
        for key in path[:-1]:
            branch = branch.setdefault(key, {})
        branch[path[-1]] = leaf
    return tree


def at_path(tree: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The leaf of a nested dict.

    Raises:
      KeyError: there is none.
    """
    for key in path:
        tree = tree[key]
    return tree


def _block_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    wide, heads = config.d_model, config.n_heads * config.head_dim
    keys = config.n_kv_heads * config.head_dim
    matrices = {
        "attn_q": (heads, wide),
        "attn_k": (keys, wide),
        "attn_v": (keys, wide),
        "attn_output": (wide, heads),
        "ffn_gate": (config.d_ff, wide),
        "ffn_up": (config.d_ff, wide),
        "ffn_down": (wide, config.d_ff),
    }
    shapes: dict[str, tuple[int, ...]] = {"attn_norm.weight": (wide,), "ffn_norm.weight": (wide,)}
    shapes |= {f"{name}.weight": shape for name, shape in matrices.items()}
    return shapes | {f"{name}.bias": matrices[name][:1] for name in config.biases}

"""Any dense feed-forward part as a SPROUT one: the same function, and a router that leaves neurons out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.checkpoint.errors import MissingKeyError, shown
from sparsejax.models.sprout.config import RouterKind, SproutFFNConfig
from sparsejax.models.sprout.routing import low_rank_basis, pooled
from sparsejax.ops.sparse_ffn.coactivation import check_order

Storage = Literal["torch", "flax"]

_PAIRS: tuple[tuple[str, str, Storage], ...] = (
    ("intermediate.dense", "output.dense", "torch"),  # BERT and its kin
    ("ffn.lin1", "ffn.lin2", "torch"),  # DistilBERT
    ("linear1", "linear2", "torch"),  # torch.nn.TransformerEncoderLayer
    ("fc1", "fc2", "torch"),  # OPT, fairseq
    ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h", "torch"),  # GPT-NeoX
    ("mlp.c_fc", "mlp.c_proj", "flax"),  # GPT-2, whose matrices are stored as (in, out)
)
_FIRST = "|".join(re.escape(first) for first, _, _ in _PAIRS)
_NAMES = re.compile(rf"(?:.*\.)?(?:layers?|h|blocks?)\.(0|[1-9][0-9]{{0,5}})\.({_FIRST})\.weight")


def convert_dense(
    w_in: Any,
    w_out: Any,
    b_in: Any = None,
    b_out: Any = None,
    *,
    storage: Storage = "torch",
    router: RouterKind = "linear",
    router_rank: int = 64,
    block_size: int = 64,
    activation: str = "gelu",
    order: Any = None,
) -> tuple[SproutFFNConfig, dict[str, Any]]:
    """A dense feed-forward part ``activation(x W1 + b1) W2 + b2`` with a router made of its input weights.

    Without ``top_k`` it computes what it did. With it, the router picks each token's neurons by an estimate
    of ``x W1``; a neuron whose product is large acts strongly.

    Args:
      w_in: first matrix.
      w_out: second matrix.
      b_in: (f,) bias of the first product, or None; the router does not see it.
      b_out: (d,) bias of the second, or None.
      storage: "torch" has W1 (f, d) and W2 (d, f), as ``nn.Linear`` stores them; "flax" has (d, f) and
        (f, d), as ``nn.Dense`` and GPT-2 do.
      router: "linear", a copy of W1, which costs as much again; "low_rank", its best approximation of
        ``router_rank``; "block", its means over blocks of ``block_size`` neurons.
      router_rank: of "low_rank".
      block_size: of "block".
      activation: of the neurons.
      order: (f,) the neuron that comes to each place, such as `coactivation_order` gives it, so that blocks
        hold neurons that act together; the function stays as it is.

    Returns:
      config and parameters of `SproutFFN`.

    Raises:
      ValueError: shapes do not fit each other, or the router cannot be made of input weights.

    Example:
      >>> w1, w2 = np.ones((6, 4), np.float32), np.ones((4, 6), np.float32)
      >>> config, params = convert_dense(w1, w2, router="low_rank", router_rank=2)
      >>> config.d_ff, params["router"]["down_kernel"].shape
      (6, (4, 2))
    """
    if router not in ("linear", "low_rank", "block"):
        raise ValueError(f'a router of kind {router!r} must be trained; give "linear", "low_rank" or "block"')
    w_in, w_out = _matrices(w_in, w_out, storage)
    d_ff, d_model = w_in.shape
    biases = _biases(b_in, b_out, d_ff, d_model) if (b_in is not None or b_out is not None) else {}
    config = SproutFFNConfig(
        d_model=d_model,
        d_ff=d_ff,
        router=router,
        router_rank=router_rank,
        block_size=block_size,
        activation=activation,
        use_bias=bool(biases),
    )
    if order is not None:
        places = check_order(order, d_ff)
        w_in, w_out = w_in[places], w_out[places]
        biases |= {"b_in": biases["b_in"][places]} if biases else {}
    return config, {"w_in": w_in, "w_out": w_out, **biases, "router": _router(config, w_in)}


def convert_dense_layers(
    state: Mapping[str, Any], **options: Any
) -> dict[int, tuple[SproutFFNConfig, dict[str, Any]]]:
    """Every feed-forward part of a BERT-style state dict, by layer.

    The names of BERT, DistilBERT, ``torch.nn.TransformerEncoder``, OPT, GPT-NeoX and GPT-2 are known,
    whatever stands before their layers.

    Args:
      state: torch tensors or arrays by key, such as ``"bert.encoder.layer.0.intermediate.dense.weight"``;
        other keys are left alone.
      options: of `convert_dense`, but for the matrices and their storage.

    Returns:
      config and parameters of `SproutFFN` by layer number, ascending.

    Raises:
      MissingKeyError: there is no such part, or its second matrix is missing.
      ValueError: shapes do not fit each other, or one layer has two such parts.

    Example:
      >>> stem = "bert.encoder.layer.0"
      >>> state = {f"{stem}.intermediate.dense.weight": np.ones((8, 4), np.float32),
      ...          f"{stem}.output.dense.weight": np.ones((4, 8), np.float32)}
      >>> convert_dense_layers(state)[0][0].d_ff
      8
    """
    parts: dict[int, tuple[SproutFFNConfig, dict[str, Any]]] = {}
    for key in state:
        if not (found := _NAMES.fullmatch(key)):
            continue
        number = int(found[1])
        if number in parts:
            raise ValueError(
                f"layer {number} has two feed-forward parts, the second at {key!r}: give one model"
            )
        first, second, storage = next(pair for pair in _PAIRS if pair[0] == found[2])
        stem = key.removesuffix(f"{first}.weight")
        if f"{stem}{second}.weight" not in state:
            raise MissingKeyError(f"{f'{stem}{second}.weight'!r} is missing beside {key!r}")
        weights = (state[key], state[f"{stem}{second}.weight"])
        biases = (state.get(f"{stem}{first}.bias"), state.get(f"{stem}{second}.bias"))
        parts[number] = convert_dense(*weights, *biases, storage=storage, **options)
    if not parts:
        known = [f"layer.N.{first}.weight" for first, _, _ in _PAIRS]
        raise MissingKeyError(
            f"no feed-forward part is named like {shown(known, 6)}; found {shown(state, 3)}"
        )
    return dict(sorted(parts.items()))


def _matrices(w_in: Any, w_out: Any, storage: Storage) -> tuple[jax.Array, jax.Array]:
    """Both as (f, d)."""
    first, second = _array(w_in), _array(w_out)
    if first.ndim != 2 or second.shape != first.shape[::-1]:
        raise ValueError(
            f"matrices of shapes {first.shape} and {second.shape} do not make a feed-forward part"
        )
    if storage == "torch":
        return first, second.T
    if storage == "flax":
        return first.T, second
    raise ValueError(f'storage={storage!r} is not known; give "torch" or "flax"')


def _biases(b_in: Any, b_out: Any, d_ff: int, d_model: int) -> dict[str, jax.Array]:
    sizes = {"b_in": d_ff, "b_out": d_model}
    biases = {}
    for name, bias in (("b_in", b_in), ("b_out", b_out)):
        biases[name] = jnp.zeros(sizes[name]) if bias is None else _array(bias)
        if biases[name].shape != (sizes[name],):
            raise ValueError(f"{name} of shape {biases[name].shape} does not fit: ({sizes[name]},) is needed")
    return biases


def _router(config: SproutFFNConfig, w_in: jax.Array) -> dict[str, jax.Array]:
    if config.router == "low_rank":
        down = low_rank_basis(w_in, config.router_rank)
        return {"down_kernel": down, "kernel": down.T @ w_in.T}
    if config.router == "block":
        return {"kernel": pooled(w_in.T, config.block_size)}
    return {"kernel": w_in.T}


def _array(value: Any) -> jax.Array:
    """Of a torch tensor, also one that requires a gradient, or of any array."""
    detach = getattr(value, "detach", None)
    return jnp.asarray(np.asarray(detach() if detach else value))

"""The layers that are measured: sizes, weights that rotate, the calls of every contestant.

One layer's weights would stay in the cache between two calls, and a sparse path reads so few of them that it
would look faster than in a network. So each call takes the next of several layers, which together exceed the
last cache, and the next of several inputs, whose number shares no factor with that of the layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from sparsejax.bench.contest import Call
from sparsejax.bench.peers import torch_ffn, torch_net
from sparsejax.models.sprout import SproutFFN, SproutFFNConfig
from sparsejax.models.sprout.config import Path, RouterKind
from sparsejax.ops.sparse_ffn import ACTIVATIONS

_STD = 0.02  # of weights that are not trained, as published
_LARGE = 512  # tokens from which few inputs are enough to fill the cache


@dataclass(frozen=True)
class Sizes:
    """Of all layers and inputs; `Sizes()` is what the targets are about.

    Attributes:
      d_model: width.
      d_ff: neurons of a layer.
      top_k: neurons per token of the rows, from many to few.
      block_size: neurons of a block.
      router_rank: of the router "low_rank".
      layers: whose weights rotate.
      stack: layers that one call runs through, one after the other; times are those of one layer.
      dtype: of weights and inputs.
    """

    d_model: int = 512
    d_ff: int = 2048
    top_k: tuple[int, int, int] = (1024, 512, 205)
    block_size: int = 64
    router_rank: int = 64
    layers: int = 16
    stack: int = 1
    dtype: str = "float32"

    @property
    def itemsize(self) -> int:
        """Bytes of a weight."""
        import jax.numpy as jnp

        return jnp.dtype(self.dtype).itemsize

    def config(self, router: RouterKind) -> SproutFFNConfig:
        """Of the feed-forward part with such a router."""
        return SproutFFNConfig(
            d_model=self.d_model,
            d_ff=self.d_ff,
            router=router,
            router_rank=self.router_rank,
            block_size=self.block_size,
        )


QUICK = Sizes(64, 256, (128, 64, 26), block_size=8, router_rank=8, layers=2)


class Layer(NamedTuple):
    """Weights of one feed-forward part in NumPy, float32.

    Attributes:
      w_in: (f, d).
      w_out: (f, d).
      routers: by kind, parameters as `SproutFFN` has them.
    """

    w_in: np.ndarray
    w_out: np.ndarray
    routers: Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Contestant:
    """One way to compute the layers.

    Attributes:
      step: a group of layers' weights and inputs (n, d) to outputs (n, d).
      one: the same for a single layer.
      groups: weights of ``stack`` layers each.
      inputs: that rotate.
      scores: of a single layer's router, for one that has a router.
    """

    step: Callable[[Any, Any], Any]
    one: Callable[[Any, Any], Any]
    groups: Sequence[Any]
    inputs: Sequence[Any]
    scores: Callable[[Any, Any], Any] | None = None

    def call(self) -> Call:
        """A call that takes the next weights and the next inputs each time."""
        step, groups, inputs, turn = self.step, self.groups, self.inputs, count()
        pairs = [(groups[i % len(groups)], inputs[i % len(inputs)]) for i in range(len(groups) * len(inputs))]

        def run() -> Any:
            return step(*pairs[next(turn) % len(pairs)])

        return run

    def layer(self, number: int) -> Any:
        """Weights of one layer."""
        stack = len(self.groups[0])
        return self.groups[number // stack][number % stack]


@cache
def layers(sizes: Sizes) -> tuple[Layer, ...]:
    """Untrained weights; every router is the best of its kind at repeating the neurons' own sums."""
    return tuple(_layer(sizes, seed) for seed in range(sizes.layers))


def inputs(sizes: Sizes, tokens: int) -> list[np.ndarray]:
    """Normed activations (n, d), so many that with the layers they come in ever new pairs."""
    number = 2 * sizes.layers + 1 if tokens < _LARGE else 3
    draws = np.random.default_rng(sizes.layers)
    return [_normal(draws, (tokens, sizes.d_model), sizes) for _ in range(number)]


def ours(sizes: Sizes, tokens: int, router: RouterKind, path: Path, top_k: int | None) -> Contestant:
    """`SproutFFN` with its router, compiled; all neurons where ``top_k`` is None."""
    import jax

    ffn = SproutFFN(sizes.config(router), dtype=sizes.dtype)

    def one(params: Any, inputs: Any) -> Any:
        return ffn.apply({"params": params}, inputs, top_k=top_k, path=path)

    def scores(params: Any, inputs: Any) -> Any:
        _, kept = ffn.apply({"params": params}, inputs, top_k=top_k, path=path, mutable=["intermediates"])
        return kept["intermediates"]["scores"][0]

    return Contestant(
        jax.jit(partial(_through, one)),
        jax.jit(one),
        _groups(_our_params(sizes, router), sizes.stack),
        _our_inputs(sizes, tokens),
        jax.jit(scores) if top_k is not None else None,
    )


def dense_peers(
    sizes: Sizes, tokens: int, *, compiled: bool, device: str = "cpu"
) -> dict[str, Callable[[], Contestant]]:
    """By name, functions that build the dense contestants; torch's raise what `contest.build` expects.

    Args:
      sizes: of the layers.
      tokens: of a call.
      compiled: with ``torch.compile`` too, which takes its time.
      device: of torch's tensors.
    """
    peers: dict[str, Callable[[], Contestant]] = {
        "dense JAX, W1 (d_ff, d_model)": partial(ours, sizes, tokens, "block", "auto", None),
        "dense JAX, W1 (d_model, d_ff)": partial(_dense_transposed, sizes, tokens),
    }
    for layout in torch_ffn.LAYOUTS:
        peers[f"dense torch, {layout}"] = partial(_dense_torch, sizes, tokens, layout, device)
    if compiled:
        layout = "W1 (d_ff, d_model)"
        peers["dense torch, compiled"] = partial(_dense_torch, sizes, tokens, layout, device, compiled=True)
    return peers


def router_weights(sizes: Sizes, router: RouterKind) -> int:
    """Numbers that a router's parameters hold."""
    return sum(array.size for array in layers(sizes)[0].routers[router].values())


def _layer(sizes: Sizes, seed: int) -> Layer:
    draws = np.random.default_rng(seed)
    w_in, w_out = (_normal(draws, (sizes.d_ff, sizes.d_model), sizes, _STD) for _ in range(2))
    columns = np.ascontiguousarray(w_in.T)
    blocks = columns.reshape(sizes.d_model, -1, sizes.block_size).mean(axis=-1)
    directions = np.linalg.eigh(columns @ w_in)[1][:, -sizes.router_rank :]  # of the largest singular values
    low_rank = {"down_kernel": directions, "kernel": directions.T @ columns}
    routers = {"linear": {"kernel": columns}, "block": {"kernel": blocks}, "low_rank": low_rank}
    return Layer(w_in, w_out, routers)


def _normal(draws: np.random.Generator, shape: tuple[int, int], sizes: Sizes, std: float = 1.0) -> np.ndarray:
    """float32 numbers that the dtype of the sizes has."""
    import jax.numpy as jnp

    drawn = np.float32(std) * draws.standard_normal(shape, np.float32)
    return drawn.astype(jnp.dtype(sizes.dtype)).astype(np.float32)


@cache
def _our_params(sizes: Sizes, router: RouterKind) -> tuple[Any, ...]:
    import jax.numpy as jnp

    return tuple(
        {
            "w_in": w_in,
            "w_out": w_out,
            "router": {name: jnp.asarray(array, sizes.dtype) for name, array in of_kind[router].items()},
        }
        for (w_in, w_out), (_, _, of_kind) in zip(_neuron_major(sizes), layers(sizes), strict=True)
    )


@cache
def _neuron_major(sizes: Sizes) -> tuple[Any, ...]:
    import jax.numpy as jnp

    return tuple(
        (jnp.asarray(layer.w_in, sizes.dtype), jnp.asarray(layer.w_out, sizes.dtype))
        for layer in layers(sizes)
    )


def _our_inputs(sizes: Sizes, tokens: int) -> list[Any]:
    import jax.numpy as jnp

    return [jnp.asarray(array, sizes.dtype) for array in inputs(sizes, tokens)]


def _dense_transposed(sizes: Sizes, tokens: int) -> Contestant:
    import jax
    import jax.numpy as jnp

    def one(weights: Any, inputs: Any) -> Any:
        w_in, w_out = weights
        return jnp.matmul(ACTIVATIONS["gelu"](jnp.matmul(inputs, w_in)), w_out)

    return Contestant(
        jax.jit(partial(_through, one)),
        jax.jit(one),
        _groups(_transposed(sizes), sizes.stack),
        _our_inputs(sizes, tokens),
    )


@cache
def _transposed(sizes: Sizes) -> tuple[Any, ...]:
    import jax.numpy as jnp

    return tuple(
        (jnp.asarray(np.ascontiguousarray(layer.w_in.T), sizes.dtype), w_out)
        for layer, (_, w_out) in zip(layers(sizes), _neuron_major(sizes), strict=True)
    )


def _dense_torch(
    sizes: Sizes, tokens: int, layout: str, device: str, *, compiled: bool = False
) -> Contestant:
    weights = _torch_weights(sizes, layout, device)
    rotating = [torch_ffn.tensor(array, dtype=sizes.dtype, device=device) for array in inputs(sizes, tokens)]
    function = torch_ffn.LAYOUTS[layout][0]
    if compiled:
        fast = torch_net.compiled(function, (rotating[0], *weights[0]))
    else:
        fast = torch_net.eager(function)

    def one(weights: Any, inputs: Any) -> Any:
        return fast((inputs, *weights))

    step = partial(_through, one)
    groups = _groups(weights, sizes.stack)
    return Contestant(step if device == "cpu" else partial(_synchronised, step), one, groups, rotating)


@cache
def _torch_weights(sizes: Sizes, layout: str, device: str) -> tuple[Any, ...]:
    _, in_transposed, out_transposed = torch_ffn.LAYOUTS[layout]
    place = partial(torch_ffn.tensor, dtype=sizes.dtype, device=device)
    return tuple(
        (place(layer.w_in, transposed=in_transposed), place(layer.w_out, transposed=out_transposed))
        for layer in layers(sizes)
    )


def _through(one: Callable[[Any, Any], Any], group: Sequence[Any], inputs: Any) -> Any:
    """Through the layers of a group, added to what they read; the last one's output alone."""
    *earlier, last = group
    for layer in earlier:
        inputs = inputs + one(layer, inputs)
    return one(last, inputs)


def _groups(weights: Sequence[Any], stack: int) -> list[tuple[Any, ...]]:
    return [tuple(weights[i : i + stack]) for i in range(0, len(weights), stack)]


def _synchronised(step: Callable[[Any, Any], Any], group: Any, inputs: Any) -> Any:
    import torch

    result = step(group, inputs)
    torch.cuda.synchronize()
    return result

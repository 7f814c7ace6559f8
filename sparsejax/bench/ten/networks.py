"""The networks that are measured: sizes, our calls, the torch calls over the same weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np

from sparsejax.bench.contest import Call
from sparsejax.bench.peers import torch_ten, torch_ten_paper, torch_transformer
from sparsejax.bench.peers import torch_ten_weights as peer

TRANSFORMER_HEADS = 8
_FFT_FAMILY = {"normalize_input": True}
_KEY = 0


@dataclass(frozen=True)
class Sizes:
    """Of all networks and inputs; `Sizes()` is what the targets are about.

    Attributes:
      vocab_size: tokens.
      dim: width.
      n_layers: layers.
      num_eigenstates: complex states per layer, or per cell.
      batch: sequences, where a row does not say otherwise.
      short: length of the shorter inputs.
      long: length of the longer inputs, and of a segment of the longest.
      longer: length at which attention has become the Transformer's work.
      longest: length that is run in segments.
      prefix: tokens before the decoded one.
    """

    vocab_size: int = 1024
    dim: int = 512
    n_layers: int = 4
    num_eigenstates: int = 64
    batch: int = 2
    short: int = 1024
    long: int = 4096
    longer: int = 32_768
    longest: int = 262_144
    prefix: int = 100_000


QUICK = Sizes(64, 64, 2, 16, short=128, long=256, longer=512, longest=4096, prefix=1000)


@dataclass(frozen=True)
class Network:
    """One of our networks with its parameters.

    Attributes:
      model: the flax module.
      params: nested dict.
    """

    model: Any
    params: Any

    def logits(self, tokens: np.ndarray, **options: Any) -> Call:
        """A call that gives logits (b, t, v)."""
        import jax

        model, placed = self.model, jax.device_put(tokens)
        forward = jax.jit(lambda params, tokens: model.apply({"params": params}, tokens, **options).logits)
        return lambda: forward(self.params, placed)

    def training(self, tokens: np.ndarray, targets: np.ndarray, **options: Any) -> Call:
        """A call that gives the mean cross entropy and its gradient by every parameter."""
        import jax
        import jax.numpy as jnp

        model = self.model

        def loss(params: Any, tokens: Any, targets: Any) -> Any:
            logits = model.apply({"params": params}, tokens, **options).logits
            return -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1).mean()

        step, placed = jax.jit(jax.value_and_grad(loss)), jax.device_put((tokens, targets))
        return lambda: jax.block_until_ready(step(self.params, *placed))

    def exact_peer(self, weights: peer.Tree) -> peer.Forward:
        """The peer that float64 outputs are taken from."""
        if self.model.config.variant == "modern":
            return torch_ten.network(weights, torch_ten.fft, **_FFT_FAMILY)
        return torch_ten_paper.network(weights, torch_ten_paper.loop, variant=self.model.config.variant)


@cache
def our_network(kind: str, sizes: Sizes) -> Network:
    """A network at its initial parameters.

    Args:
      kind: "fft", the plain diagonal layer that the peers have too; "recommended", with memory and a short
        convolution; "paper" or "seed", with the mixing fed back; "diagonalised", the inference form of
        "paper".
      sizes: of the network.
    """
    import jax

    from sparsejax.models.ten import (
        EigenstateLayer,
        TemporalEigenstateConfig,
        TemporalEigenstateNetwork,
        diagonalise,
    )

    if kind == "diagonalised":
        paper = our_network("paper", sizes)
        config, params = diagonalise(paper.model.config, paper.params)
        return Network(TemporalEigenstateNetwork(config), params)
    fields: dict[str, Any] = {
        "vocab_size": sizes.vocab_size,
        "dim": sizes.dim,
        "n_layers": sizes.n_layers,
        "num_eigenstates": sizes.num_eigenstates,
        "dropout": 0.0,
        "pos_emb_type": "none",
        "use_gradient_checkpointing": False,
    }
    if kind == "fft":
        fields["layer"] = EigenstateLayer(normalize_input=True)
    modern = kind in ("fft", "recommended")
    config = (
        TemporalEigenstateConfig.modern(**fields)
        if modern
        else TemporalEigenstateConfig(**fields, variant=cast(Any, kind))
    )
    model = TemporalEigenstateNetwork(config)
    return Network(model, jax.jit(model.init)(jax.random.key(_KEY), np.zeros((1, 4), np.int32))["params"])


def token_batch(sizes: Sizes, length: int, batch: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Random ids and targets, (b, t) int32 each."""
    shape = 2, batch or sizes.batch, length
    ids, targets = np.random.default_rng(0).integers(0, sizes.vocab_size, shape).astype(np.int32)
    return ids, targets


def torch_ids(array: np.ndarray, device: str = "cpu") -> Any:
    """As an int64 tensor."""
    import torch

    return torch.from_numpy(array.astype(np.int64)).to(device)


def diagonal_peers(*, looped: bool = True) -> dict[str, Callable[[peer.Tree], peer.Forward]]:
    """By name: weights to the forward pass of the diagonal network in torch."""
    recurrences = {
        "torch loop": torch_ten.loop,
        "torch loop as published": torch_ten.loop_as_published,
        "torch hand-differentiated loop": torch_ten.hand_differentiated_loop,
        "torch FFT": torch_ten.fft,
    }

    def forward(recurrence: torch_ten.Recurrence) -> Callable[[peer.Tree], peer.Forward]:
        return lambda weights: torch_ten.network(weights, recurrence, **_FFT_FAMILY)

    return {name: forward(one) for name, one in recurrences.items() if looped or "loop" not in name}


def mixed_peers(network: Network) -> dict[str, Callable[[peer.Tree], peer.Forward]]:
    """By name: weights to the forward pass of the ``paper`` or ``seed`` network in torch."""
    variant = network.model.config.variant
    cells = {"torch loop": torch_ten_paper.loop, "torch loop as published": torch_ten_paper.loop_as_published}

    def forward(one: torch_ten_paper.Cells) -> Callable[[peer.Tree], peer.Forward]:
        return lambda weights: torch_ten_paper.network(weights, one, variant=variant)

    return {name: forward(one) for name, one in cells.items()}


def torch_forward(
    params: Any, forward: Callable[[peer.Tree], peer.Forward], tokens: np.ndarray, *, dtype: str = "float32"
) -> Call:
    """A call that gives a torch network's logits."""
    run, ids = peer.inference(forward(peer.tensors(params, dtype=dtype))), torch_ids(tokens)
    return lambda: run(ids)


def torch_training(
    params: Any,
    forward: Callable[[peer.Tree], peer.Forward],
    batch: tuple[np.ndarray, np.ndarray],
    *,
    dtype: str = "float32",
    device: str = "cpu",
) -> Call:
    """A call that gives a torch network's loss and gradients."""
    weights = peer.tensors(params, dtype=dtype, device=device, gradients=True)
    return peer.training_step(forward(weights), weights, *(torch_ids(array, device) for array in batch))


def transformer_params(sizes: Sizes, length: int) -> dict[str, Any]:
    """Of a Transformer of the same width, depth and vocabulary."""
    return torch_transformer.random_params(
        0, vocab_size=sizes.vocab_size, dim=sizes.dim, n_layers=sizes.n_layers, length=length
    )


def transformer_forward(weights: peer.Tree) -> peer.Forward:
    """The Transformer over its tensors."""
    return torch_transformer.network(weights, heads=TRANSFORMER_HEADS)


def matrix_products(sizes: Sizes, tokens: int, *, training: bool = False) -> float:
    """Floating-point operations in the matrix products of the ``fft`` network."""
    d, k = sizes.dim, sizes.num_eigenstates
    layer = 2 * d * k + 2 * k * d + d * d + 8 * d * d
    return 2.0 * tokens * (sizes.n_layers * layer + d * sizes.vocab_size) * (3 if training else 1)


@cache
def product_rate(threads: int) -> float:
    """Operations per second of a (2048, 512) @ (512, 2048) product in jax, the feed-forward part's size."""
    import jax
    import jax.numpy as jnp

    from sparsejax.bench.timing import race

    del threads
    product, x, kernel = jax.jit(jnp.matmul), jnp.ones((2048, 512)), jnp.ones((512, 2048))
    timing = race({"product": lambda: product(x, kernel)}, repetitions=15, repetition_seconds=0.05)
    return 2 * 2048 * 512 * 2048 / timing["product"].best


def product_bound(work: float, threads: int) -> str:
    """Words for a network whose matrix products take so many operations."""
    rate = product_rate(threads)
    return (
        f"matrix products: {work / 1e9:,.1f} GFLOP at {rate / 1e9:,.0f} GFLOP/s, as measured here "
        f"in this run = {1e3 * work / rate:,.1f} ms"
    )

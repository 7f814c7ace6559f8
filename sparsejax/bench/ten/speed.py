"""Whole networks: forward and backward beside the torch loops, forward beside a Transformer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from sparsejax.bench.contest import Call
from sparsejax.bench.machine import Machine
from sparsejax.bench.peers import torch_net
from sparsejax.bench.peers import torch_ten_weights as peer
from sparsejax.bench.report import Row, Target
from sparsejax.bench.ten import networks as nets
from sparsejax.bench.ten.race import Error, NetworkRace, decide, gradient_difference, largest_difference

_LOOP = (Target("torch loop", at_least=2),)
_TRANSFORMER = {
    "long": Target("torch Transformer", at_least=2),
    "longer": Target("torch Transformer", at_least=8),
}
_CHECKED = 512
_RECOMMENDED = "with memory and short convolution"
_GRADIENT_ERROR = "largest error to float64 of the loss or of a gradient, relative"
_LOGIT_ERROR = "max error to float64"
_TRAINING_NOTE = (
    "Gradients of every weight, no dropout, nothing recomputed. The torch loop computes all that does not "
    "depend on the step before outside of the loop; 'as published' has the original's operations inside; the "
    "hand-differentiated loop records no graph: its one derivative is written by hand."
)
_TRANSFORMER_NOTE = (
    f"The Transformer has the same width, depth and vocabulary, {nets.TRANSFORMER_HEADS} heads, GELU, a "
    "hidden layer of 4 times the width and scaled_dot_product_attention; its error is that of the first "
    f"{_CHECKED} tokens, which see nothing of the others."
)


def training_races(sizes: nets.Sizes, machine: Machine) -> list[Callable[[], NetworkRace]]:
    """Loss and gradients at two lengths: the diagonal network, and the one whose mixing is fed back."""
    return [
        partial(training_race, kind, length, sizes, machine)
        for length in (sizes.short, sizes.long)
        for kind in ("fft", "paper")
    ]


def training_race(kind: str, length: int, sizes: nets.Sizes, machine: Machine) -> NetworkRace:
    """Loss and gradients of one network beside torch over the same weights."""
    network, batch = nets.our_network(kind, sizes), nets.token_batch(sizes, length)
    forwards = nets.diagonal_peers() if kind == "fft" else nets.mixed_peers(network)
    other = "recommended" if kind == "fft" else "seed"
    names = {"recommended": _RECOMMENDED, "seed": "seed variant"}
    work = nets.matrix_products(sizes, sizes.batch * length, training=True)
    words = {"fft": "diagonal network", "paper": "network with mixing fed back (paper variant)"}
    return NetworkRace(
        case=f"{words[kind]}, loss and gradients, batch {sizes.batch}, T={length:,}",
        ours=network.training(*batch),
        peers={
            name: partial(nets.torch_training, network.params, forward, batch)
            for name, forward in forwards.items()
        },
        error_name=_GRADIENT_ERROR,
        error=_exact(
            partial(nets.torch_training, network.params, network.exact_peer, batch, dtype="float64"),
            gradient_difference,
        ),
        bound=nets.product_bound(work, machine.threads),
        variants={names[other]: nets.our_network(other, sizes).training(*batch)},
        targets=_LOOP,
        notes=(_TRAINING_NOTE,),
    )


def forward_race(at: str, sizes: nets.Sizes, machine: Machine, *, quick: bool) -> NetworkRace:
    """Logits beside a Transformer of the same width and depth.

    Args:
      at: "long" or "longer", a length of ``sizes``; the longer one has batch 1.
      sizes: of the networks.
      machine: of the run.
      quick: no compiled torch.
    """
    length, batch = getattr(sizes, at), sizes.batch if at == "long" else 1
    network, (tokens, _) = nets.our_network("fft", sizes), nets.token_batch(sizes, getattr(sizes, at), batch)
    transformer = nets.transformer_params(sizes, length)

    def compiled() -> Call:
        run = nets.transformer_forward(peer.tensors(transformer))
        ids = nets.torch_ids(tokens)
        fast = torch_net.compiled(run, ids)
        return lambda: fast(ids)

    peers: dict[str, Callable[[], Call]] = {
        "torch Transformer": partial(nets.torch_forward, transformer, nets.transformer_forward, tokens)
    }
    if at == "long" and not quick:
        peers["torch Transformer, compiled"] = compiled
    peers |= {
        name: partial(nets.torch_forward, network.params, forward, tokens)
        for name, forward in nets.diagonal_peers(looped=at == "long").items()
        if name != "torch loop as published"
    }
    own = _exact(
        partial(nets.torch_forward, network.params, network.exact_peer, tokens, dtype="float64"),
        largest_difference,
    )
    theirs = _exact(
        partial(
            nets.torch_forward, transformer, nets.transformer_forward, tokens[:, :_CHECKED], dtype="float64"
        ),
        lambda logits, exact: largest_difference(logits[:, :_CHECKED], exact),
    )

    def error(name: str, logits: Any) -> float | None:
        return (theirs if "Transformer" in name else own)(name, logits)

    work = nets.matrix_products(sizes, batch * length)
    return NetworkRace(
        case=f"diagonal network, logits, batch {batch}, T={length:,}",
        ours=network.logits(tokens),
        peers=peers,
        error_name=_LOGIT_ERROR,
        error=error,
        bound=nets.product_bound(work, machine.threads),
        variants={_RECOMMENDED: nets.our_network("recommended", sizes).logits(tokens)},
        targets=(_TRANSFORMER[at],),
        notes=(_TRANSFORMER_NOTE,),
    )


def measure(sizes: nets.Sizes, machine: Machine, *, quick: bool) -> Iterator[Row]:
    """All rows of this module."""
    races = training_races(sizes, machine)
    races += [partial(forward_race, at, sizes, machine, quick=quick) for at in ("long", "longer")]
    for contest in races:
        yield decide(contest(), machine, quick=quick)


def _exact(build: Callable[[], Call], difference: Callable[[Any, Any], float]) -> Error:
    """The difference to what a float64 call gives, which runs when first asked for; None without torch."""
    kept: list[Any] = []

    def error(name: str, result: Any) -> float | None:
        if name.startswith("ours: "):
            return None
        try:
            if not kept:
                kept.append(build()())
        except ModuleNotFoundError:
            return None
        return difference(result, kept[0])

    return error

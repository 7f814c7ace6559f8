"""The published eigenstate network whose mixing is fed back, in PyTorch, as a loop over time.

Variants ``paper`` and ``seed``. Projections in and out run over all steps at once, outside of the loop.

Source: specs/ten.md section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sparsejax.bench.peers.torch_ten_weights import Forward, Tree, embedded, head, layer_norm, linear

Cells = Callable[[Any, Any, Any, Any], Any]
"""Real drive (c, b, t, k), magnitude and frequency (c, k), mixing (c, k, k) to real states (c, b, t, k)."""


def network(
    weights: Tree, cells: Cells, *, variant: str = "paper", clip: float = 0.99, epsilon: float = 0.01
) -> Forward:
    """Logits over our parameters.

    Args:
      weights: of `tensors`.
      cells: one of this module.
      variant: "paper", or "seed": mixed once more on read-out, and the tanh GELU.
      clip: largest magnitude of an eigenvalue.
      epsilon: size of the mixing beside the identity.
    """
    layers = sorted((name for name in weights if name.startswith("layer_")), key=_number)

    def forward(tokens: Any) -> Any:
        x = embedded(tokens, weights)
        for name in layers:
            x = _block(x, weights[name], cells, variant=variant, clip=clip, epsilon=epsilon)
        return head(x, weights)

    return forward


def loop(drive: Any, magnitude: Any, frequency: Any, mixing: Any) -> Any:
    """One batched matrix product per step for all cells, real and imaginary parts side by side."""
    import torch

    k = drive.shape[-1]
    transition = torch.polar(magnitude, frequency)[..., None] * mixing
    rows = (
        torch.cat((transition.real, transition.imag), -1),
        torch.cat((-transition.imag, transition.real), -1),
    )
    matrix = torch.cat(rows, -2)
    mixed = torch.einsum("cbtk,ckj->tcbj", drive, mixing)
    first, *rest = torch.nn.functional.pad(mixed, (0, k)).unbind(0)
    states = [first]
    for step in rest:
        states.append(torch.baddbmm(step, states[-1], matrix))
    return torch.stack(states, 2)[..., :k]


def loop_as_published(drive: Any, magnitude: Any, frequency: Any, mixing: Any) -> Any:
    """The shape of the original: cell after cell, parts apart, slices of the drive, a growing list."""
    import torch

    outputs = []
    for number in range(drive.shape[0]):
        factor, angle, mix = magnitude[number], frequency[number], mixing[number]
        cosine, sine = factor * angle.cos(), factor * angle.sin()
        real = imaginary = torch.zeros_like(drive[number, :, 0])
        states = []
        for step in range(drive.shape[2]):
            turned = (
                real * cosine - imaginary * sine + drive[number, :, step],
                real * sine + imaginary * cosine,
            )
            real, imaginary = turned[0] @ mix, turned[1] @ mix
            states.append(real)
        outputs.append(torch.stack(states, 1))
    return torch.stack(outputs)


def _block(
    x: Any, weights: Mapping[str, Any], cells: Cells, *, variant: str, clip: float, epsilon: float
) -> Any:
    import torch
    from torch.nn.functional import gelu

    seed, own = variant == "seed", weights["cells"]
    count, _, k = own["in_proj"].shape
    mixing = torch.eye(k, dtype=x.dtype, device=x.device).expand(count, k, k)
    if "resonance" in own:
        raw = own["resonance"]
        mixing = mixing + epsilon * raw / (torch.linalg.norm(raw, dim=(1, 2), keepdim=True) + 1e-8)
    drive = torch.einsum("btd,cdk->cbtk", x, own["in_proj"])
    states = cells(drive, clip * own["decay_logit"].sigmoid(), own["frequency"], mixing)
    out = (mixing @ own["out_proj"] if seed else own["out_proj"]) / count
    x = layer_norm(x + torch.einsum("cbtk,ckd->btd", states, out), weights["norm1"])
    hidden = gelu(linear(x, weights["ffn_in"]), approximate="tanh" if seed else "none")
    return layer_norm(x + linear(hidden, weights["ffn_out"]), weights["norm2"])


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])

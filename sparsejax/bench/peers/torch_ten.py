"""The diagonal eigenstate network in PyTorch, with the recurrence as a loop over time or as an FFT.

One network, four recurrences. What does not depend on the state before is computed for all steps at once,
outside of the loop; the coupling is multiplied into the output matrix, which is smaller than the states.

Source: specs/ten.md sections 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sparsejax.bench.peers.torch_ten_weights import Forward, Tree, embedded, head, layer_norm, linear

Recurrence = Callable[[Any, Any, Any], Any]
"""Drive (b, t, 2k) in halves, log |lambda| (k,) and frequency (k,) to the states (b, t, 2k) in halves."""


def network(weights: Tree, recurrence: Recurrence, *, normalize_input: bool = False) -> Forward:
    """Logits of the ``fft`` family over our parameters.

    Args:
      weights: of `tensors`.
      recurrence: one of this module.
      normalize_input: multiply the drive by sqrt(1 - |lambda|^2).
    """
    layers = sorted((name for name in weights if name.startswith("layer_")), key=_number)

    def forward(tokens: Any) -> Any:
        x = embedded(tokens, weights)
        for name in layers:
            x = _layer(x, weights[name], recurrence, normalize_input=normalize_input)
        return head(x, weights)

    return forward


def loop(drive: Any, log_magnitude: Any, frequency: Any) -> Any:
    """One complex multiply-add per step, recorded by autograd; time is cut and joined in one call each."""
    import torch

    batch, _, width = drive.shape
    # Expanded outside, or each step's gradient of lambda is summed over the batch by itself.
    factor = torch.polar(log_magnitude.exp(), frequency).expand(batch, width // 2)
    first, *rest = torch.complex(*drive.chunk(2, -1)).unbind(1)
    states = [first]
    for step in rest:
        states.append(torch.addcmul(step, factor, states[-1]))
    joined = torch.stack(states, 1)
    return torch.cat((joined.real, joined.imag), -1)


def loop_as_published(drive: Any, log_magnitude: Any, frequency: Any) -> Any:
    """The shape of the original: real and imaginary parts apart, slices of the drive, a growing list."""
    import torch

    magnitude, width = log_magnitude.exp(), drive.shape[-1] // 2
    cosine, sine = frequency.cos(), frequency.sin()
    real = imaginary = torch.zeros_like(drive[:, 0, :width])
    states = []
    for step in range(drive.shape[1]):
        turned = real * cosine - imaginary * sine, real * sine + imaginary * cosine
        real = magnitude * turned[0] + drive[:, step, :width]
        imaginary = magnitude * turned[1] + drive[:, step, width:]
        states.append(torch.cat((real, imaginary), -1))
    return torch.stack(states, 1)


def fft(drive: Any, log_magnitude: Any, frequency: Any) -> Any:
    """Convolution with the powers of lambda: zeros up to twice the length, complex transforms."""
    import torch

    length = drive.shape[1]
    steps = torch.arange(length, dtype=drive.dtype, device=drive.device)[:, None]
    kernel = torch.polar((steps * log_magnitude).exp(), steps * frequency)
    spectrum = torch.fft.fft(kernel, 2 * length, dim=0)
    states = torch.fft.ifft(
        torch.fft.fft(torch.complex(*drive.chunk(2, -1)), 2 * length, dim=1) * spectrum, dim=1
    )[:, :length]
    return torch.cat((states.real, states.imag), -1)


def hand_differentiated_loop(drive: Any, log_magnitude: Any, frequency: Any) -> Any:
    """The loop with a derivative by hand: both directions write into buffers, and nothing is recorded."""
    import torch

    factor = torch.polar(log_magnitude.exp(), frequency)
    states = _buffered_loop().apply(torch.complex(*drive.chunk(2, -1)), factor)
    return torch.cat((states.real, states.imag), -1)


def _buffered_loop() -> Any:
    from torch.autograd import Function

    class BufferedLoop(Function):
        @staticmethod
        def forward(ctx: Any, drive: Any, factor: Any) -> Any:
            states = _run(drive.transpose(0, 1), factor)
            ctx.save_for_backward(states, factor)
            return states.transpose(0, 1)

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            states, factor = ctx.saved_tensors
            back = _run(gradient.transpose(0, 1).flip(0), factor.conj().resolve_conj()).flip(0)
            by_factor = (states[:-1].conj() * back[1:]).sum((0, 1))
            return back.transpose(0, 1), by_factor

    return BufferedLoop


def _run(drive: Any, factor: Any) -> Any:
    """States (t, b, k) of a drive (t, b, k)."""
    import torch

    states = drive.contiguous().clone()
    steps = states.unbind(0)
    for before, here in zip(steps, steps[1:], strict=False):
        torch.addcmul(here, factor, before, out=here)
    return states


def _layer(x: Any, weights: Mapping[str, Any], recurrence: Recurrence, *, normalize_input: bool) -> Any:
    import torch
    from torch.nn.functional import linear as product
    from torch.nn.functional import logsigmoid, silu

    log_magnitude, frequency = logsigmoid(weights["decay_logit"]), weights["frequency"]
    normed = layer_norm(x, weights["norm1"])
    into = weights["in_proj"]["kernel"]
    if normalize_input:
        scale = (-torch.expm1(2 * log_magnitude)).sqrt()
        into = into * torch.cat((scale, scale))
    states = recurrence(product(normed, into.T), log_magnitude, frequency)
    mixed = product(states, _coupled(weights).T)
    x = torch.addcmul(x, linear(normed, weights["gate"]).sigmoid(), mixed)
    hidden = silu(linear(layer_norm(x, weights["norm2"]), weights["ffn_in"]))
    return x + linear(hidden, weights["ffn_out"])


def _coupled(weights: Mapping[str, Any]) -> Any:
    """The output matrix (2k, d) after the coupling, the same for both halves."""
    import torch

    blocks, out = weights["coupling"], weights["out_proj"]["kernel"]
    heads, size = blocks.shape[:2]
    parts = out.view(2, heads, size, out.shape[1])
    return torch.einsum("hjk,phjd->phkd", blocks, parts).reshape(out.shape)


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])

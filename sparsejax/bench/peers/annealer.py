"""The published annealer in NumPy and in torch: same data, same proposal rule, one chain each.

Written as well as their libraries allow one chain to be written: draws in blocks, gathered columns kept
until an input is exchanged, results into buffers. ``torch_as_published`` has the shape of the original
instead: a clone with fresh random weights per proposal, a Python loop over neurons.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsejax.bench.peers.weights import SparseWeights

HIDDEN, FAN_IN = 8, 2
RATE, SCALE, SWAP_RATE = 0.1, 0.1, 0.05
HOT, COLD = 1e-2, 1e-5

_BLOCK = 512
_VALUES = HIDDEN * FAN_IN + 2 * HIDDEN + 1


@dataclass(frozen=True)
class Annealed:
    """What a chain found: the best net, its reported error, accepted proposals."""

    net: SparseWeights
    mse: float
    accepted: int


def temperatures(steps: int) -> np.ndarray:
    """(steps,) the geometric schedule."""
    schedule: np.ndarray = HOT * (COLD / HOT) ** (np.arange(steps) / steps)
    return schedule


def random_net(draws: np.random.Generator, inputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Index table (8, 2) and the 33 values w1, b1, w2, b2 as one vector, drawn as published."""
    table = np.stack([draws.permutation(inputs)[:FAN_IN] for _ in range(HIDDEN)])
    w1 = draws.standard_normal(HIDDEN * FAN_IN) * math.sqrt(2 / FAN_IN)
    w2 = draws.standard_normal(HIDDEN) * math.sqrt(2 / HIDDEN)
    values = np.concatenate([w1, np.zeros(HIDDEN), w2, np.zeros(1)]).astype(np.float32)
    return table, values


def numpy_anneal(features: np.ndarray, targets: np.ndarray, steps: int, seed: int) -> Annealed:
    """One chain in NumPy.

    Args:
      features: (b, i) float32.
      targets: (b,) float32.
      steps: proposals.
      seed: of the chain.
    """
    draws = np.random.default_rng(seed)
    columns, inputs = np.ascontiguousarray(features.T), features.shape[1]
    table, values = random_net(draws, inputs)
    gathered = columns[table.ravel()]
    current = best = _error(gathered, values, targets)
    best_net, accepted = (table.copy(), values.copy()), 0
    for step, temperature in enumerate(temperatures(steps)):
        row = step % _BLOCK
        if row == 0:
            shape = (min(_BLOCK, steps - step), _VALUES)
            noise = draws.standard_normal(shape, np.float32) * np.float32(SCALE)
            noise *= draws.random(shape, np.float32) < RATE
            swaps = draws.random((shape[0], HIDDEN)) < SWAP_RATE
            chances = draws.random(shape[0])
        proposal = values + noise[row]
        changed = swaps[row].any()
        if changed:
            new_table, new_gathered = _swapped(draws, table, gathered, columns, swaps[row])
        mse = _error(new_gathered if changed else gathered, proposal, targets)
        if mse < current or chances[row] < math.exp((current - mse) / temperature):
            values, current, accepted = proposal, mse, accepted + 1
            if changed:
                table, gathered = new_table, new_gathered
            if mse < best:
                best, best_net = mse, (table.copy(), values.copy())
    return Annealed(_weights(*best_net), float(best), accepted)


def torch_anneal(features: np.ndarray, targets: np.ndarray, steps: int, seed: int) -> Annealed:
    """`numpy_anneal` in torch: the same blocks, buffers and order."""
    import torch

    draws = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    columns, inputs = torch.from_numpy(np.ascontiguousarray(features.T)), features.shape[1]
    goal = torch.from_numpy(targets)
    table, start = random_net(draws, inputs)
    values = torch.from_numpy(start)
    gathered = columns[torch.from_numpy(table.ravel())]

    def error(gathered: Any, values: Any) -> float:
        hidden = (gathered * values[:16, None]).view(HIDDEN, FAN_IN, -1).sum(1)
        hidden.add_(values[16:24, None]).tanh_()
        outputs = torch.mv(hidden.T, values[24:32]).add_(values[32]).tanh_()
        return float((outputs - goal).square_().mean())

    with torch.inference_mode():
        current = best = error(gathered, values)
        best_net, accepted = (table.copy(), values.clone()), 0
        for step, temperature in enumerate(temperatures(steps)):
            row = step % _BLOCK
            if row == 0:
                shape = (min(_BLOCK, steps - step), _VALUES)
                noise = torch.randn(shape, generator=generator) * SCALE
                noise *= torch.rand(shape, generator=generator) < RATE
                swaps = draws.random((shape[0], HIDDEN)) < SWAP_RATE
                chances = draws.random(shape[0])
            proposal = values + noise[row]
            changed = swaps[row].any()
            new_table, new_gathered = table, gathered
            if changed:
                new_table = _exchanged(draws, table, inputs, swaps[row])
                new_gathered = columns[torch.from_numpy(new_table.ravel())]
            mse = error(new_gathered, proposal)
            if mse < current or chances[row] < math.exp((current - mse) / temperature):
                values, current, accepted = proposal, mse, accepted + 1
                table, gathered = new_table, new_gathered
                if mse < best:
                    best, best_net = mse, (table.copy(), values.clone())
    return Annealed(_weights(best_net[0], best_net[1].numpy()), best, accepted)


def torch_as_published(features: np.ndarray, targets: np.ndarray, steps: int, seed: int) -> Annealed:
    """One chain with the costs of the original: what specs/ultra_sparse.md section 11 lists of them."""
    import torch

    draws = np.random.default_rng(seed)
    torch.manual_seed(seed)
    inputs_matrix, goal = torch.from_numpy(features), torch.from_numpy(targets)
    inputs = features.shape[1]

    def fresh() -> tuple[Any, list[Any]]:
        table = torch.stack([torch.randperm(inputs)[:FAN_IN] for _ in range(HIDDEN)])
        w1 = torch.randn(HIDDEN, FAN_IN) * math.sqrt(2 / FAN_IN)
        w2 = torch.randn(1, HIDDEN) * math.sqrt(2 / HIDDEN)
        return table, [w1, torch.zeros(HIDDEN), w2, torch.zeros(1)]

    def error(table: Any, params: list[Any]) -> float:
        w1, b1, w2, b2 = params
        read = torch.zeros(len(inputs_matrix), HIDDEN, FAN_IN)
        for neuron in range(HIDDEN):
            read[:, neuron] = inputs_matrix[:, table[neuron]]
        hidden = torch.tanh((read * w1).sum(-1) + b1)
        outputs = torch.tanh(hidden @ w2.T + b2).squeeze(-1)
        return float(((outputs - goal) ** 2).mean())

    def mutated(table: Any, params: list[Any]) -> tuple[Any, list[Any]]:
        new_table, new = fresh()
        new_table.copy_(table)
        for own, old in zip(new, params, strict=True):
            own.copy_(old)
            own.add_((torch.rand_like(own) < RATE).float() * torch.randn_like(own) * SCALE)
        for neuron in range(HIDDEN):
            if draws.random() < SWAP_RATE:
                slot, used = draws.integers(FAN_IN), set(new_table[neuron].tolist())
                available = [index for index in range(inputs) if index not in used]
                new_table[neuron, slot] = available[draws.integers(len(available))]
        return new_table, new

    with torch.no_grad():
        net = best_net = fresh()
        current = best = error(*net)
        accepted = 0
        for temperature in temperatures(steps):
            proposal = mutated(*net)
            mse = error(*proposal)
            if mse < current or draws.random() < math.exp((current - mse) / temperature):
                net, current, accepted = proposal, mse, accepted + 1
                if mse < best:
                    best, best_net = mse, net
    flat = np.concatenate([param.numpy().ravel() for param in best_net[1]])
    return Annealed(_weights(best_net[0].numpy(), flat), best, accepted)


def _error(gathered: np.ndarray, values: np.ndarray, targets: np.ndarray) -> float:
    hidden = (gathered * values[:16, None]).reshape(HIDDEN, FAN_IN, -1).sum(axis=1)
    hidden += values[16:24, None]
    np.tanh(hidden, out=hidden)
    outputs = values[24:32] @ hidden
    outputs += values[32]
    np.tanh(outputs, out=outputs)
    outputs -= targets
    return float(outputs @ outputs) / len(targets)


def _swapped(
    draws: np.random.Generator,
    table: np.ndarray,
    gathered: np.ndarray,
    columns: np.ndarray,
    swaps: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    new = _exchanged(draws, table, len(columns), swaps)
    changed = np.flatnonzero(new.ravel() != table.ravel())
    new_gathered = gathered.copy()
    new_gathered[changed] = columns[new.ravel()[changed]]
    return new, new_gathered


def _exchanged(draws: np.random.Generator, table: np.ndarray, inputs: int, swaps: np.ndarray) -> np.ndarray:
    """The table in which the chosen neurons read one input that they did not read before."""
    table = table.copy()
    for neuron in np.flatnonzero(swaps):
        slot, rank = draws.integers(FAN_IN), draws.integers(inputs - FAN_IN)
        for used in np.sort(table[neuron]):
            rank += rank >= used
        table[neuron, slot] = rank
    return table


def _weights(table: np.ndarray, values: np.ndarray) -> SparseWeights:
    w1, b1, w2, b2 = np.split(np.asarray(values), [16, 24, 32])
    return SparseWeights(table.astype(np.int32), w1.reshape(HIDDEN, FAN_IN), b1, w2.reshape(1, HIDDEN), b2)

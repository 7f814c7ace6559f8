"""The family in plain NumPy loops, written from specs/ultra_sparse.md: what JAX is held against."""

from __future__ import annotations

import numpy as np

TWO_PI = 2 * np.pi


def expand(x, recipe="trained", true_columns=16, noise_columns=240):
    """(n, columns) in float64 for x of shape (n,): specs sections 1 and 3."""
    x = np.asarray(x, np.float64)
    return np.stack(_COLUMNS[recipe](x, true_columns, noise_columns), axis=-1)


def jump_distance(x):
    """(n, 256): how far the argument of a trained square-wave or sawtooth column is from a jump, else inf."""
    x = np.asarray(x, np.float64)
    frequency, phase, _ = trained_draws()
    distance = np.full((len(x), 256), np.inf)
    for column in range(20):
        angle = x * frequency[40 + column]
        distance[:, 16 + 200 + column] = np.abs(angle - np.pi * np.round(angle / np.pi))
        ramp = x * frequency[60 + column] + phase[60 + column]
        distance[:, 16 + 220 + column] = np.abs(ramp - 2 * np.round(ramp / 2))
    return distance


def trained_draws():
    """Frequencies, phases and scales of the trained recipe, 100 each."""
    draws = np.random.RandomState(12345)
    return draws.uniform(0.1, 10, 100), draws.uniform(0, TWO_PI, 100), draws.uniform(0.5, 2, 100)


def _trained(x, true_columns, noise_columns):
    n, waves = x / TWO_PI, (0.5, 1, 1.5, 2, 2.5, 3)
    true = [n, n**2, n**3] + [np.sin(q * x) for q in waves] + [np.cos(q * x) for q in waves]
    true += [np.zeros_like(x)] * max(0, true_columns - len(true))
    f, p, s = trained_draws()
    halves = np.arange(1, 11) / 2
    noise = [np.sin(x * f[i] + p[i]) for i in range(50)] + [np.cos(x * f[i] + p[i]) for i in range(50, 100)]
    noise += [-np.sin(k * x) for k in halves] + [-np.cos(k * x) for k in halves]
    noise += [n**exponent for exponent in range(4, 24)]
    noise += [np.sin(x * f[i]) * np.cos(x * f[i + 20]) for i in range(20)]
    noise += [np.tanh(x * s[i]) for i in range(20)]
    noise += [np.exp(-np.abs(x * (0.3 * s[i]))) - 0.5 for i in range(20, 40)]
    noise += [np.sign(np.sin(x * f[i])) for i in range(40, 60)]
    noise += [np.fmod(x * f[i] + p[i], 2) - 1 for i in range(60, 80)]
    return true[:true_columns] + noise[:noise_columns]


def _harmonics(x, count):
    return ([np.sin(k * x) for k in range(1, 9)] + [np.cos(k * x) for k in range(1, 9)])[:count]


def _readme(x, true_columns, noise_columns):
    draws, columns = np.random.RandomState(42), _harmonics(x, true_columns)
    for _ in range(noise_columns):
        phase = draws.rand() * TWO_PI
        frequency = 10 + draws.rand() * 90
        columns.append(np.sin(frequency * x + phase))
    return columns


def _sine_problem(x, true_columns, noise_columns):
    draws = np.random.RandomState(42)
    frequencies = [10 + draws.rand() * 90 for _ in range(noise_columns)]
    phases = [draws.rand() * TWO_PI for _ in range(noise_columns)]
    noise = [np.sin(f * x + p) for f, p in zip(frequencies, phases, strict=True)]
    return _harmonics(x, true_columns) + noise


def _library(x, true_columns, noise_columns):
    numbers = range(true_columns + noise_columns)
    return [np.sin((i + 1) * x) if i % 2 == 0 else np.cos((i // 2 + 1) * x) for i in numbers]


_COLUMNS = {"trained": _trained, "readme": _readme, "sine_problem": _sine_problem, "library": _library}


def activations(config, params, features):
    """Activations of every layer in float64, one neuron at a time: specs section 4."""
    values, result = np.asarray(features, np.float64), []
    for number, layer in enumerate(config.layers):
        own = {name: np.asarray(value) for name, value in params[f"layer_{number}"].items()}
        columns = [_neuron(layer, own, values, h) for h in range(layer.features)]
        values = _ACTIVATE[layer.activation](np.stack(columns, axis=-1))
        result.append(values)
    return result


def forward(config, params, features):
    """Outputs (b, o) in float64."""
    return activations(config, params, features)[-1]


def _neuron(layer, own, values, h):
    total = np.full(values.shape[:-1], float(own["bias"][h]))
    if layer.kind == "sparse":
        weights = _float(own, "weights")[h]
        count = int(own["live"][h]) if layer.variable_fan_in else len(weights)
        for slot in range(count):
            total = total + values[..., int(own["indices"][h, slot])] * weights[slot]
        return total
    kernel = _float(own, "kernel")[:, h]
    for source in range(len(kernel)):
        if layer.kind == "dense" or own["mask"][source, h]:
            total = total + values[..., source] * kernel[source]
    return total


def _float(own, name):
    stored = own[name].astype(np.float64)
    return stored / 127 * float(own["scale"]) if "scale" in own else stored


_ACTIVATE = {"tanh": np.tanh, "linear": lambda h: h, "relu": lambda h: np.maximum(h, 0), "sign": np.sign}

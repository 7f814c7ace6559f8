"""What an ultra-sparse network is made of: layers, each reading all, a masked part, or K of its inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sparsejax.ops.counts import check_count

LayerKind = Literal["sparse", "masked", "dense"]
Activation = Literal["tanh", "linear", "relu", "sign"]
WeightFormat = Literal["float", "int8"]


@dataclass(frozen=True)
class Layer:
    """One layer of a stack; `sparse`, `masked` and `dense` build it.

    Attributes:
      kind: "sparse" reads ``fan_in`` inputs per neuron through an index table, "masked" multiplies the
        kernel with a stored mask, "dense" reads everything.
      features: neurons of the layer.
      fan_in: inputs per neuron of a sparse layer (the width of its table); None for the others.
      activation: "sign" has sign(0) = 0.
      variable_fan_in: the table is padded and a stored count says how many slots of a neuron live.
      weights: "int8" stores ``round(w / max|w| * 127)`` and one scale per layer.
    """

    kind: LayerKind
    features: int
    fan_in: int | None = None
    activation: Activation = "tanh"
    variable_fan_in: bool = False
    weights: WeightFormat = "float"

    def __post_init__(self):
        """Refuse what no network can have."""
        if self.kind not in get_args(LayerKind):
            raise ValueError(f"layer kind {self.kind!r} is not one of {get_args(LayerKind)}")
        if self.activation not in get_args(Activation):
            raise ValueError(f"activation {self.activation!r} is not one of {get_args(Activation)}")
        if self.weights not in get_args(WeightFormat):
            raise ValueError(f"weights {self.weights!r} is not one of {get_args(WeightFormat)}")
        check_count("features", self.features, 1)
        if (self.kind == "sparse") != (self.fan_in is not None):
            raise ValueError("fan_in belongs to sparse layers, and they need it")
        if self.fan_in is not None:
            check_count("fan_in", self.fan_in, 1)

    def __repr__(self) -> str:
        """Short: ``sparse(8, 2, tanh)``."""
        details = [str(self.features), *([] if self.fan_in is None else [str(self.fan_in)]), self.activation]
        details += ["variable"] if self.variable_fan_in else []
        details += ["int8"] if self.weights == "int8" else []
        return f"{self.kind}({', '.join(details)})"


def sparse(
    features: int, fan_in: int, activation: Activation = "tanh", *, variable_fan_in: bool = False
) -> Layer:
    """A layer whose neurons read ``fan_in`` inputs each."""
    return Layer("sparse", features, fan_in, activation, variable_fan_in)


def masked(features: int, activation: Activation = "tanh") -> Layer:
    """A dense layer under a stored binary mask."""
    return Layer("masked", features, activation=activation)


def dense(features: int, activation: Activation = "tanh") -> Layer:
    """An ordinary fully connected layer."""
    return Layer("dense", features, activation=activation)


@dataclass(frozen=True)
class UltraSparseConfig:
    """A stack of layers over ``input_size`` features; the default is the published 33-parameter net.

    Attributes:
      input_size: number of input features.
      layers: from the input to the output.

    Example:
      >>> UltraSparseConfig().num_parameters
      33
      >>> UltraSparseConfig.deep(64, (16, 14), 10, inputs_per_neuron=4).layers[1].fan_in
      4
    """

    input_size: int = 256
    layers: tuple[Layer, ...] = (Layer("sparse", 8, 2), Layer("dense", 1))

    def __post_init__(self):
        """Check that every table fits the layer below it."""
        check_count("input_size", self.input_size, 1)
        if not self.layers:
            raise ValueError("a network needs at least one layer")
        width = self.input_size
        for number, layer in enumerate(self.layers):
            if layer.fan_in is not None and layer.fan_in > width and not layer.variable_fan_in:
                raise ValueError(
                    f"layer {number} reads {layer.fan_in} inputs per neuron of only {width}; "
                    "lower inputs_per_neuron"
                )
            width = layer.features

    @classmethod
    def fixed_k(
        cls,
        input_size: int = 256,
        hidden_size: int = 8,
        output_size: int = 1,
        inputs_per_neuron: int = 2,
        output_activation: Activation = "tanh",
    ) -> UltraSparseConfig:
        """One sparse hidden layer and a dense output (specs section 4)."""
        return cls(
            input_size, (sparse(hidden_size, inputs_per_neuron), dense(output_size, output_activation))
        )

    @classmethod
    def dense(
        cls,
        input_size: int = 256,
        hidden_size: int = 8,
        output_size: int = 1,
        hidden_activation: Activation = "tanh",
        output_activation: Activation = "tanh",
    ) -> UltraSparseConfig:
        """The fully connected counterpart that the sparse net is compared with."""
        return cls(input_size, (dense(hidden_size, hidden_activation), dense(output_size, output_activation)))

    @classmethod
    def deep(
        cls, input_size: int, hidden_sizes: Sequence[int], output_size: int, inputs_per_neuron: int
    ) -> UltraSparseConfig:
        """Several sparse layers, each with a table into the one below, and a dense output."""
        hidden = (sparse(size, inputs_per_neuron) for size in hidden_sizes)
        return cls(input_size, (*hidden, dense(output_size)))

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> UltraSparseConfig:
        """The config that `to_json` wrote."""
        return cls(int(fields["input_size"]), tuple(Layer(**layer) for layer in fields["layers"]))

    def to_json(self) -> dict[str, Any]:
        """Plain nested dict."""
        return dataclasses.asdict(self)

    @property
    def output_size(self) -> int:
        """Outputs of the last layer."""
        return self.layers[-1].features

    @property
    def num_parameters(self) -> int:
        """Weights and biases; index tables and masks are counted by `metrics.storage_bits`."""
        width, total = self.input_size, 0
        for layer in self.layers:
            total += layer.features * ((layer.fan_in or width) + 1)
            width = layer.features
        return total

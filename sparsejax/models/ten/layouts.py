"""The file layouts of the family as conversion tables: one per published network, both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparsejax.checkpoint.layer_rules import linear_rules, norm_rules
from sparsejax.checkpoint.rules import Rule
from sparsejax.checkpoint.transforms import Transform, chain, split, transpose
from sparsejax.models.ten.config import TemporalEigenstateConfig

PUBLISHED = ("seed", "paper")
"""Variants of the first generation: their files hold the same tensors, which they use differently."""

LEGACY = ("chunked_legacy", "ssd_legacy")
"""Variants that compute the published in-chunk mistake; taken only where they are asked for by name."""


@dataclass(frozen=True)
class StackLayout:
    """What the keys of one stack of modern layers are called.

    Attributes:
      stem: before the layer's number, in the file.
      target: before the layer's number, in the parameters.
      norm: of the two normalisations, before their number.
      coupling: of the coupling blocks, before their number.
      gate: of the gate.
      bands: of the dead matrix beside it.
      memory: of what reads the layer below, before "_gate" and "_proj".
      convolution: of the short convolution.
      selection: whether there may be a selective projection.
      attention: whether there may be attention.
    """

    stem: str = "layers"
    target: str = "layer"
    norm: str = "norm"
    coupling: str = "coupling_blocks"
    gate: str = "gate_proj"
    bands: str | None = None
    memory: str | None = None
    convolution: str | None = None
    selection: bool = False
    attention: bool = False

    def key(self, name: str, layer: int = 0) -> str:
        """The key of a tensor of a layer."""
        return f"{self.stem}.{layer}.{name}"


_PLAIN = StackLayout()
_SELECTIVE = StackLayout(selection=True)
_PRO = StackLayout(
    gate="spectral_gate.main_gate", bands="spectral_gate.band_gates", memory="memory", attention=True
)
_SSD = StackLayout(memory="memory", convolution="short_conv")
_UNIFIED = (
    StackLayout("fft_layers"),
    StackLayout(
        "pro_layers",
        "long_layer",
        gate="spectral_gate.main_gate",
        bands="spectral_gate.band_proj",
        memory="memory",
    ),
)
_V03 = (
    StackLayout("fft_layers", norm="n", coupling="coupling", gate="gate.gate"),
    StackLayout(
        "pro_layers",
        "long_layer",
        norm="n",
        coupling="coupling",
        gate="gate.gate",
        memory="mem",
        convolution="conv",
    ),
)

STACKS: Mapping[str, tuple[StackLayout, ...]] = {
    "fft": (_PLAIN,),
    "selective": (_SELECTIVE,),
    "final": (_SELECTIVE,),
    "pro": (_PRO,),
    "hybrid": (_PRO,),
    "ssd": (_SSD,),
    "unified": _UNIFIED,
    "v03": _V03,
    "chunked_legacy": (_PLAIN,),
    "ssd_legacy": (_SSD,),
}
"""Stacks by variant; ``sequential``, ``seed`` and ``paper`` have layers of their own."""

_EIGENSTATES = ("layers.{i}.log_decay", "layers.{i}.in_proj.weight", "layers.{i}.mlp.0.weight")
_BLOCKS = (*_EIGENSTATES, "layers.{i}.coupling_blocks.{h}")
_TWO_STACKS = tuple(
    f"{stem}.{{i}}.{name}"
    for stem in ("fft_layers", "pro_layers")
    for name in ("log_decay", "in_proj.weight", "mlp.0.weight")
)
_TABLES = ("token_emb.weight", "pos_emb.weight")
CELL_KEYS = ("alpha_raw", "omega", "input_proj.weight", "output_proj.weight")
"""What every published cell has."""

_PUBLISHED_KEYS = (
    "token_emb.weight",
    *(f"blocks.{{i}}.cells.{{c}}.{name}" for name in CELL_KEYS),
    "blocks.{i}.ffn1.weight",
    "output.weight",
)

LAYOUTS: Mapping[str, Sequence[str]] = {
    "sequential": (*_TABLES, "layers.{i}.eigvec_real", "layers.{i}.alpha", "layers.{i}.mlp.0.weight"),
    "fft": (*_TABLES, *_BLOCKS, "layers.{i}.gate_proj.weight"),
    "selective": (*_TABLES, *_BLOCKS, "layers.{i}.gate_proj.weight", "layers.{i}.select_proj.weight"),
    "final": (*_TABLES, *_EIGENSTATES, "layers.{i}.gate_proj.weight"),
    "pro": (*_TABLES, *_BLOCKS, "layers.{i}.spectral_gate.band_gates.weight"),
    "hybrid": (*_TABLES, *_BLOCKS, "layers.{i}.spectral_gate.band_gates.weight"),
    "ssd": (*_TABLES, *_BLOCKS, "layers.{i}.gate_proj.weight"),
    "unified": (*_TABLES, *_TWO_STACKS, "pro_layers.{i}.spectral_gate.band_proj.weight"),
    "v03": ("tok_emb.weight", "pos_emb.weight", *_TWO_STACKS, "pro_layers.{i}.coupling.{h}"),
    "chunked_legacy": (*_TABLES, *_BLOCKS, "layers.{i}.gate_proj.weight"),
    "ssd_legacy": (*_TABLES, *_BLOCKS, "layers.{i}.gate_proj.weight"),
    "seed": _PUBLISHED_KEYS,
    "paper": _PUBLISHED_KEYS,
}
"""Keys by variant that every file of it has, in its first layer too (specs/ten.md section 4)."""


def token_table(variant: str) -> str:
    """The key of the token table."""
    return "tok_emb.weight" if variant == "v03" else "token_emb.weight"


def rules(variant: str, config: TemporalEigenstateConfig) -> tuple[Rule, ...]:
    """The conversion table of a variant."""
    if variant in PUBLISHED:
        return _published_rules(config)
    table = token_table(variant)
    stacks = STACKS.get(variant)
    layers = (
        _SEQUENTIAL if stacks is None else [rule for stack in stacks for rule in _stack_rules(stack, config)]
    )
    return (
        Rule(table, "token_embedding/embedding"),
        Rule("pos_emb.weight", "position_embedding/embedding"),
        *layers,
        *norm_rules("norm_f", "final_norm"),
        Rule("lm_head.weight", tied_to=table),
    )


_leading_axis = Transform(
    "leading axis",
    lambda arrays: tuple(array[None] for array in arrays),
    lambda arrays: tuple(array.squeeze(0) for array in arrays),
)
_taps = Transform(
    "taps first",
    lambda arrays: tuple(array.squeeze(1).swapaxes(0, 1) for array in arrays),
    lambda arrays: tuple(array.swapaxes(0, 1)[:, None] for array in arrays),
)
"""A depthwise convolution's (channels, 1, taps) to (taps, channels)."""


def _stack_rules(stack: StackLayout, config: TemporalEigenstateConfig) -> list[Rule]:
    source, target = f"{stack.stem}.{{i}}", f"{stack.target}_{{i}}"
    coupling = Rule(f"{source}.{stack.coupling}.{{h}}", f"{target}/coupling", stack="h")
    if config.layer.coupling == "full":
        coupling = Rule(f"{source}.coupling", f"{target}/coupling", _leading_axis)
    table = [
        Rule(f"{source}.log_decay", f"{target}/decay_logit"),
        Rule(f"{source}.frequency", f"{target}/frequency"),
        Rule(f"{source}.in_proj.weight", f"{target}/in_proj/kernel", transpose),
        coupling,
        Rule(f"{source}.out_proj.weight", f"{target}/out_proj/kernel", transpose),
        *linear_rules(f"{source}.{stack.gate}", f"{target}/gate"),
        *linear_rules(f"{source}.mlp.0", f"{target}/ffn_in"),
        *linear_rules(f"{source}.mlp.2", f"{target}/ffn_out"),
        *norm_rules(f"{source}.{stack.norm}1", f"{target}/norm1"),
        *norm_rules(f"{source}.{stack.norm}2", f"{target}/norm2"),
    ]
    if stack.selection:
        table += linear_rules(f"{source}.select_proj", f"{target}/select_proj")
    if stack.bands:
        table += linear_rules(f"{source}.{stack.bands}", f"{target}/band_gates")
    if stack.memory:
        table.append(Rule(f"{source}.{stack.memory}_gate", f"{target}/memory_gate"))
        table.append(Rule(f"{source}.{stack.memory}_proj.weight", f"{target}/memory_proj/kernel", transpose))
    if stack.convolution:
        table.append(Rule(f"{source}.{stack.convolution}.weight", f"{target}/short_conv/kernel", _taps))
        table.append(Rule(f"{source}.{stack.convolution}.bias", f"{target}/short_conv/bias"))
    return table + (_attention_rules(source, target) if stack.attention else [])


def _attention_rules(source: str, target: str) -> list[Rule]:
    kernels = tuple(f"{target}/attention/{part}/kernel" for part in ("query", "key", "value"))
    biases = tuple(f"{target}/attention/{part}/bias" for part in ("query", "key", "value"))
    return [
        *norm_rules(f"{source}.attn_norm", f"{target}/attention_norm"),
        Rule(f"{source}.attn.in_proj_weight", kernels, chain(split(3), transpose)),
        Rule(f"{source}.attn.in_proj_bias", biases, split(3)),
        *linear_rules(f"{source}.attn.out_proj", f"{target}/attention/out"),
    ]


_SEQUENTIAL = (
    Rule("layers.{i}.eigvec_real", "layer_{i}/eigenvectors_real"),
    Rule("layers.{i}.eigvec_imag", "layer_{i}/eigenvectors_imag"),
    Rule("layers.{i}.alpha", "layer_{i}/decay_logit"),
    Rule("layers.{i}.omega", "layer_{i}/frequency"),
    Rule("layers.{i}.resonance_eps", "layer_{i}/coupling_scale"),
    Rule("layers.{i}.resonance_M", "layer_{i}/coupling_mixing"),
    *linear_rules("layers.{i}.out_proj", "layer_{i}/out_proj"),
    *linear_rules("layers.{i}.mlp.0", "layer_{i}/ffn_in"),
    *linear_rules("layers.{i}.mlp.3", "layer_{i}/ffn_out"),
    *norm_rules("layers.{i}.norm1", "layer_{i}/norm1"),
    *norm_rules("layers.{i}.norm2", "layer_{i}/norm2"),
)

_BLOCK = (
    Rule("blocks.{i}.cells.{c}.alpha_raw", "layer_{i}/cells/decay_logit", stack="c"),
    Rule("blocks.{i}.cells.{c}.omega", "layer_{i}/cells/frequency", stack="c"),
    Rule("blocks.{i}.cells.{c}.resonance_M", "layer_{i}/cells/resonance", stack="c"),
    Rule("blocks.{i}.cells.{c}.input_proj.weight", "layer_{i}/cells/in_proj", transpose, stack="c"),
    Rule("blocks.{i}.cells.{c}.output_proj.weight", "layer_{i}/cells/out_proj", transpose, stack="c"),
    *linear_rules("blocks.{i}.ffn1", "layer_{i}/ffn_in"),
    *linear_rules("blocks.{i}.ffn2", "layer_{i}/ffn_out"),
    *norm_rules("blocks.{i}.norm1", "layer_{i}/norm1"),
    *norm_rules("blocks.{i}.norm2", "layer_{i}/norm2"),
)


def _published_rules(config: TemporalEigenstateConfig) -> tuple[Rule, ...]:
    positions = Rule("pos_emb.emb.weight", "position_embedding/embedding")
    if config.pos_emb_type == "sinusoidal":
        positions = Rule("pos_emb.pe", "position_embedding/embedding", _without_leading_axis)
    head = Rule("output.weight", tied_to="token_emb.weight")
    if not config.tie_weights:
        head = Rule("output.weight", "head/kernel", transpose)
    return (
        Rule("token_emb.weight", "token_embedding/embedding"),
        positions,
        *_BLOCK,
        *norm_rules("norm", "final_norm"),
        head,
    )


_without_leading_axis = Transform("without leading axis", _leading_axis.backward, _leading_axis.forward)

"""The file layouts of the family as conversion tables: one per published version, both ways."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sparsejax.checkpoint.layer_rules import linear_rules, norm_rules
from sparsejax.checkpoint.rules import Rule
from sparsejax.checkpoint.transforms import chain, split, transpose
from sparsejax.models.sprout.config import DeepSets, SproutConfig, SproutFFNConfig

DEEP_SETS = ("v4a", "v4b", "v4c")
"""Variants without an output matrix."""

_MIXED = ("v3", "low_rank", "block")

_MODEL = ("token_embedding.weight", "position_embedding.weight", "layers.{i}.attention.in_proj_weight")
_ROUTER = {
    "linear": ("router.W_router",),
    "mlp": ("router.W_router_1", "router.W_router_2"),
    "low_rank": ("router.W_down", "router.W_up"),
    "block": ("router.W_block",),
    "mlp_block": ("router.W_router_1", "router.W_block"),
}
"""The matrices of each kind of router; those with "down", "up" and "block" are of this library."""

FFN_KEYS: Mapping[str, tuple[str, ...]] = {
    "v0": ("middle_neurons.{n}.W_in", "output_neurons.{n}.W", "router.W_router"),
    "v1": ("W1", "W2", "router.W_router"),
    "v2": ("W1", "W2", "router.W_router_1", "router.W_router_2"),
    "v3": ("W1", "W2", "manifold_mixer.phi.0.weight", "manifold_mixer.rho.0.weight"),
    "v4a": ("neuron_vecs", "W_in", "phi.0.weight", "rho.0.weight", "rho.3.weight"),
    "v4b": ("neuron_vecs", "W_in", "phi.0.weight", "rho.0.weight", "rho.4.weight"),
    "v4c": ("neuron_vecs.weight", "W_in.weight", "phi.0.weight", "rho.0.weight", "rho.4.weight"),
    "low_rank": ("W1", "W2", "router.W_down", "router.W_up"),
    "block": ("W1", "W2", "router.W_block"),
}
"""Keys of a feed-forward part that every file of a variant has: what `detect` looks for."""

LAYOUTS: Mapping[str, Sequence[str]] = {
    variant: (*_MODEL, *(f"layers.{{i}}.ffn.{key}" for key in keys)) for variant, keys in FFN_KEYS.items()
}
"""Keys by variant that every model file of it has (specs/sprout.md section 2); a feed-forward part on its own
has its keys without "layers.{i}.ffn."."""


def rules(variant: str, config: SproutConfig | SproutFFNConfig) -> tuple[Rule, ...]:
    """The conversion table of a variant, for a model or for a feed-forward part on its own."""
    if isinstance(config, SproutFFNConfig):
        return tuple(_ffn(variant, config, "", ""))
    layer, target = "layers.{i}", "layer_{i}"
    kernels = tuple(f"{target}/attention/{part}/kernel" for part in ("query", "key", "value"))
    biases = tuple(f"{target}/attention/{part}/bias" for part in ("query", "key", "value"))
    return (
        Rule("token_embedding.weight", "token_embedding/embedding"),
        Rule("position_embedding.weight", "position_embedding/embedding"),
        Rule(f"{layer}.attention.in_proj_weight", kernels, chain(split(3), transpose)),
        Rule(f"{layer}.attention.in_proj_bias", biases, split(3)),
        *linear_rules(f"{layer}.attention.out_proj", f"{target}/attention/out"),
        *_ffn(variant, config.ffn, f"{layer}.ffn.", f"{target}/ffn/"),
        *norm_rules(f"{layer}.norm1", f"{target}/norm1"),
        *norm_rules(f"{layer}.norm2", f"{target}/norm2"),
        *linear_rules("output_projection", "head"),
        *norm_rules("norm", "final_norm"),
    )


def router_kind(keys: Collection[str], stem: str) -> str | None:
    """The kind of the router whose matrices are there under ``stem``; None if there is none."""
    fitting = (kind for kind in reversed(_ROUTER) if all(stem + key in keys for key in _ROUTER[kind]))
    return next(fitting, None)


def _ffn(variant: str, config: SproutFFNConfig, source: str, target: str) -> list[Rule]:
    router = _router(config, f"{source}router", f"{target}router")
    if config.deep_sets is not None:
        return _deep_sets(variant, config.deep_sets, source, target) + router
    if variant == "v0":
        w_in = Rule(f"{source}middle_neurons.{{n}}.W_in", f"{target}w_in", stack="n")
        return [
            w_in,
            Rule(f"{source}output_neurons.{{n}}.W", f"{target}w_out", transpose, stack="n"),
            *router,
        ]
    table = [Rule(f"{source}W1", f"{target}w_in"), Rule(f"{source}W2", f"{target}w_out", transpose), *router]
    if config.use_bias:
        table += [Rule(f"{source}b1", f"{target}b_in"), Rule(f"{source}b2", f"{target}b_out")]
    if variant in _MIXED and config.mixer_hidden is not None:
        mixer = f"{source}manifold_mixer"
        table += _phi(f"{mixer}.phi", f"{target}mixer")
        table += linear_rules(f"{mixer}.rho.0", f"{target}mixer/rho_in")
        table += linear_rules(f"{mixer}.rho.3", f"{target}mixer/rho_out")
    return table


def _router(config: SproutFFNConfig, source: str, target: str) -> list[Rule]:
    def matrix(name: str, path: str) -> Rule:
        return Rule(f"{source}.{name}", f"{target}/{path}", transpose)

    if config.router == "low_rank":
        return [matrix("W_down", "down_kernel"), matrix("W_up", "kernel")]
    if config.router == "linear":
        return [matrix("W_router", "kernel")]
    last = matrix("W_block" if config.selects_blocks else "W_router_2", "kernel")
    if config.router == "block":
        return [last]
    return [matrix("W_router_1", "hidden_kernel"), last, *norm_rules(f"{source}.norm", f"{target}/norm")]


def _deep_sets(variant: str, sizes: DeepSets, source: str, target: str) -> list[Rule]:
    end, place = (".weight" if variant == "v4c" else ""), f"{target}deep_sets"
    first = 1 if sizes.normalize_sum else 0
    table = [
        Rule(f"{source}neuron_vecs{end}", f"{place}/neuron_vectors"),
        Rule(f"{source}W_in{end}", f"{target}w_in"),
        *_phi(f"{source}phi", place),
        *linear_rules(f"{source}rho.{first}", f"{place}/rho_in"),
        *linear_rules(f"{source}rho.{first + 3}", f"{place}/rho_out"),
    ]
    return table + ([*norm_rules(f"{source}rho.0", f"{place}/rho_norm")] if sizes.normalize_sum else [])


def _phi(source: str, target: str) -> list[Rule]:
    return [
        *linear_rules(f"{source}.0", f"{target}/phi_in"),
        *norm_rules(f"{source}.1", f"{target}/phi_norm"),
        *linear_rules(f"{source}.3", f"{target}/phi_out"),
        *norm_rules(f"{source}.4", f"{target}/phi_out_norm"),
    ]

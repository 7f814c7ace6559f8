"""Losses of a SPROUT network in training: masked language modelling, and what its routers are taught."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.models.sprout import SproutConfig, SproutLM
from sparsejax.models.sprout.losses import (
    RouterLossVersion,
    distillation_loss,
    load_balance_loss,
    router_loss,
    z_loss,
)
from sparsejax.models.sprout.mlm import MaskingRule, mask_tokens
from sparsejax.models.sprout.oracle import activations
from sparsejax.models.sprout.routing import Router
from sparsejax.models.sprout.selection import select
from sparsejax.training.counted_cross_entropy import counted_cross_entropy, expected_count
from sparsejax.training.cross_entropy import TokenLoss
from sparsejax.training.recipes.sprout.settings import SproutSettings
from sparsejax.training.tree_paths import map_paths
from sparsejax.typing import Params

Batch = dict[str, jax.Array]

MLM_LOSS, ROUTER_LOSS = "mlm_loss", "router_loss"
_FIRST_LAYER_EVERY = 10  # steps, as published


class Objective:
    """What a run minimises, as pure functions of parameters and batch.

    Args:
      config: of the network.
      settings: of the run.
      rule: what is masked.
      pad: id of padding.
      dtype: of the computation; None is that of the parameters.
    """

    def __init__(
        self,
        config: SproutConfig,
        settings: SproutSettings,
        rule: MaskingRule,
        *,
        pad: int,
        dtype: jax.typing.DTypeLike | None = None,
    ):
        self.config, self.settings, self._rule, self._pad = config, settings, rule, pad
        self._model = SproutLM(config, dtype=dtype)
        self._dtype = dtype

    def training_loss(
        self, params: Params, batch: Batch, key: jax.Array, *, top_k: Any, step: Any
    ) -> TokenLoss:
        """Loss of a batch whose tokens are masked anew.

        Args:
          params: of the network.
          batch: ``tokens`` (b, t).
          key: PRNG key of the step.
          top_k: neurons per token; None is all.
          step: number of the step, from 0; may be traced.
        """
        of_masks, key = jax.random.split(key)
        inputs, labels = mask_tokens(of_masks, batch["tokens"], self._rule)
        return self.masked_loss(params, (inputs, labels), key, top_k=top_k, step=step)

    def masked_loss(
        self, params: Params, masked: tuple[Any, Any], key: jax.Array, *, top_k: Any, step: Any
    ) -> TokenLoss:
        """Loss of tokens (b, t) that are masked already, given with their labels (b, t)."""
        inputs, labels = masked
        of_network, of_routers = jax.random.split(key)
        hidden, layers = self._hidden(params, inputs, of_network, top_k=top_k)
        found = self._guesses(params, hidden, labels)
        metrics = {**(found.metrics or {}), MLM_LOSS: found.total}
        total = found.total
        if self.settings.taught == "distillation" or self.settings.balanced:
            visible = None if (ignored := self._ignored(inputs)) is None else ~ignored
            taught = self._of_scores(params, layers, top_k, visible)
        elif self.settings.taught in {"all", "first10"}:
            taught = self._published(params, inputs, of_routers, top_k=top_k, step=step)
        else:
            return found._replace(metrics=metrics)
        weighted = taught * found.weight
        metrics[ROUTER_LOSS] = weighted
        return TokenLoss(total + self.settings.router_loss_weight * weighted, found.weight, metrics)

    def validation_loss(self, params: Params, batch: Batch) -> TokenLoss:
        """Loss of a batch with ``final_top_k`` neurons; a row's masks depend on its number and the seed only.

        Args:
          params: of the network.
          batch: ``tokens`` (b, t) and ``number`` (b) of the rows.
        """
        key = jax.random.key(self.settings.seed)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["number"])
        inputs, labels = jax.vmap(lambda own, row: mask_tokens(own, row, self._rule))(keys, batch["tokens"])
        top_k = self.settings.final_top_k
        hidden: Any = self._model.apply(
            {"params": params}, inputs, **self._options(inputs, top_k), method="hidden"
        )
        return self._guesses(params, hidden, labels)

    def _guesses(self, params: Params, hidden: jax.Array, labels: jax.Array) -> TokenLoss:
        head = params["head"]
        room = expected_count(labels.size, self._rule.probability)
        return counted_cross_entropy(hidden, head["kernel"], head["bias"], labels, room=room)

    def _hidden(self, params: Params, inputs: jax.Array, key: jax.Array, *, top_k: Any) -> tuple[Any, Any]:
        """States (b, t, d) before the head, and what each layer's FFN read."""
        hidden, variables = self._model.apply(
            {"params": params},
            inputs,
            **self._options(inputs, top_k),
            train=True,
            straight_through=self.settings.straight_through,
            rngs={"dropout": key},
            method="hidden",
            mutable=["intermediates"],
        )
        found = variables["intermediates"]
        return hidden, [found[f"layer_{number}"]["ffn"] for number in range(self.config.n_layers)]

    def _options(self, inputs: jax.Array, top_k: Any) -> dict[str, Any]:
        path = "block" if self.settings.selection == "block" else "masked"
        return {"top_k": top_k, "path": path, "key_padding_mask": self._ignored(inputs)}

    def _ignored(self, inputs: jax.Array) -> jax.Array | None:
        """(b, t) True at padding; the published trainer attended to it."""
        return inputs == self._pad if self.settings.recipe == "default" else None

    def _of_scores(self, params: Params, layers: Any, top_k: Any, visible: Any) -> jax.Array:
        """Mean over layers; gradients reach the routers alone."""
        config, settings = self.config.ffn, self.settings
        blocks = config.selects_blocks or settings.selection == "block"
        router = Router(config, dtype=self._dtype)
        losses = []
        for number, layer in enumerate(layers):
            ffn = params[f"layer_{number}"]["ffn"]
            inputs, fixed = jax.lax.stop_gradient((layer["ffn_in"][0], ffn))
            scores: Any = router.apply({"params": ffn["router"]}, inputs, fixed["w_in"], blocks=blocks)
            loss = jnp.zeros(())
            if settings.taught == "distillation":
                values, size = activations(config, fixed, inputs), config.block_size if blocks else 1
                loss += distillation_loss(scores, values, visible, block_size=size)
            if settings.load_balance_weight:
                count = config.d_ff if top_k is None else top_k
                selected = select(config, scores, count, blocks=blocks).units
                loss += settings.load_balance_weight * load_balance_loss(scores, selected, visible)
            if settings.z_loss_weight:
                loss += settings.z_loss_weight * z_loss(scores, visible)
            losses.append(loss)
        return jnp.stack(losses).mean()

    def _published(
        self, params: Params, inputs: jax.Array, key: jax.Array, *, top_k: Any, step: Any
    ) -> jax.Array:
        """A published loss: of sparse steps, and 0 of others. It has a forward pass of its own."""
        if top_k is None:
            return jnp.zeros(())
        everywhere = self.settings.taught == "all"
        due = jnp.asarray(top_k < self.config.d_ff)
        due = due if everywhere else due & (step % _FIRST_LAYER_EVERY == 0)
        fixed = "^(token|position)_embedding/" if everywhere else r"^(?!layer_0/(norm2|ffn/router)/)"
        version: RouterLossVersion = "cross_entropy" if everywhere else "three_terms"

        def loss(params: Params) -> jax.Array:
            held = map_paths(lambda path, leaf: _held(leaf) if re.search(fixed, path) else leaf, params)
            _, layers = self._hidden(held, inputs, key, top_k=top_k)
            found = []
            for number, layer in enumerate(layers if everywhere else layers[:1]):
                ffn = jax.lax.stop_gradient(params[f"layer_{number}"]["ffn"])
                values = activations(self.config.ffn, ffn, layer["ffn_in"][0])
                found.append(router_loss(layer["scores"][0], values, top_k, version=version))
            return jnp.stack(found).mean()

        of_router: jax.Array = jax.lax.cond(due, loss, lambda _: jnp.zeros(()), params)
        return of_router


def _held(leaf: jax.Array) -> jax.Array:
    return jax.lax.stop_gradient(leaf)

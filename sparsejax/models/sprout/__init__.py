"""SPROUT: masked language models that pick each token's FFN neurons at run time (specs/sprout.md)."""

from sparsejax.models.sprout.analysis import (
    analyse,
    coactivation,
    layer_statistics,
    neuron_similarity,
    neuron_usage,
    sense_overlap,
    topic_specialisation,
    usage_statistics,
)
from sparsejax.models.sprout.config import DeepSets, SproutConfig, SproutFFNConfig
from sparsejax.models.sprout.convert_dense import convert_dense, convert_dense_layers
from sparsejax.models.sprout.ffn import SproutFFN
from sparsejax.models.sprout.fill_mask import fill_mask
from sparsejax.models.sprout.losses import distillation_loss, load_balance_loss, router_loss, z_loss
from sparsejax.models.sprout.mlm import MaskingRule, mask_tokens, mlm_accuracy, mlm_apply, mlm_loss
from sparsejax.models.sprout.model import RouterStatistics, SproutLM, SproutOutput
from sparsejax.models.sprout.neurons import least_used, most_used, neuron, output_neuron
from sparsejax.models.sprout.permute import permute_neurons
from sparsejax.models.sprout.quality import ffn_quality, logit_quality
from sparsejax.models.sprout.routing import with_block_router
from sparsejax.models.sprout.schedule import bucketed_sparsity_schedule, sparsity_schedule, traced_top_k
from sparsejax.ops.sparse_ffn.coactivation import coactivation_order

__all__ = [
    "DeepSets",
    "MaskingRule",
    "RouterStatistics",
    "SproutConfig",
    "SproutFFN",
    "SproutFFNConfig",
    "SproutLM",
    "SproutOutput",
    "analyse",
    "bucketed_sparsity_schedule",
    "coactivation",
    "coactivation_order",
    "convert_dense",
    "convert_dense_layers",
    "distillation_loss",
    "ffn_quality",
    "fill_mask",
    "layer_statistics",
    "least_used",
    "load_balance_loss",
    "logit_quality",
    "mask_tokens",
    "mlm_accuracy",
    "mlm_apply",
    "mlm_loss",
    "most_used",
    "neuron",
    "neuron_similarity",
    "neuron_usage",
    "output_neuron",
    "permute_neurons",
    "router_loss",
    "sense_overlap",
    "sparsity_schedule",
    "topic_specialisation",
    "traced_top_k",
    "usage_statistics",
    "with_block_router",
    "z_loss",
]

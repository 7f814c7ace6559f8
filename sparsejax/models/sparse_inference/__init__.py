"""Sparse inference: FFNs that compute the neurons a predictor names (specs/sparse_inference.md)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sparsejax.models.sparse_inference.config import CacheConfig, ModelConfig, SparsityConfig
from sparsejax.ops.sparse_ffn.coactivation import coactivation_order

if TYPE_CHECKING:
    from sparsejax.models.sparse_inference.batching import Batcher as Batcher
    from sparsejax.models.sparse_inference.cache_statistics import CacheStatistics as CacheStatistics
    from sparsejax.models.sparse_inference.calibration import Calibration as Calibration
    from sparsejax.models.sparse_inference.calibration import Calibrator as Calibrator
    from sparsejax.models.sparse_inference.calibration import calibrate as calibrate
    from sparsejax.models.sparse_inference.calibration import fit_low_rank as fit_low_rank
    from sparsejax.models.sparse_inference.compensation import Compensation as Compensation
    from sparsejax.models.sparse_inference.compensation import compensation_errors as compensation_errors
    from sparsejax.models.sparse_inference.compensation import fit_compensation as fit_compensation
    from sparsejax.models.sparse_inference.ffn import SparseFFN as SparseFFN
    from sparsejax.models.sparse_inference.ffn_paths import predicted_ffn as predicted_ffn
    from sparsejax.models.sparse_inference.ffn_permute import permute_blocks as permute_blocks
    from sparsejax.models.sparse_inference.ffn_permute import permute_ffn as permute_ffn
    from sparsejax.models.sparse_inference.ffn_permute import permute_predictor as permute_predictor
    from sparsejax.models.sparse_inference.ffn_plan import FFNPlan as FFNPlan
    from sparsejax.models.sparse_inference.generation import Generated as Generated
    from sparsejax.models.sparse_inference.generation import generate as generate
    from sparsejax.models.sparse_inference.generation import stream as stream
    from sparsejax.models.sparse_inference.gguf import AffineTensor as AffineTensor
    from sparsejax.models.sparse_inference.gguf import GGUFError as GGUFError
    from sparsejax.models.sparse_inference.gguf import GGUFFile as GGUFFile
    from sparsejax.models.sparse_inference.gguf import GGUFTensor as GGUFTensor
    from sparsejax.models.sparse_inference.gguf import QuantizedTensor as QuantizedTensor
    from sparsejax.models.sparse_inference.gguf import read_gguf as read_gguf
    from sparsejax.models.sparse_inference.gguf import write_gguf as write_gguf
    from sparsejax.models.sparse_inference.hot_cold import NeuronCounts as NeuronCounts
    from sparsejax.models.sparse_inference.llama import LlamaLM as LlamaLM
    from sparsejax.models.sparse_inference.llama import LlamaOutput as LlamaOutput
    from sparsejax.models.sparse_inference.llama_config import LlamaConfig as LlamaConfig
    from sparsejax.models.sparse_inference.llama_observe import collect_ffn_inputs as collect_ffn_inputs
    from sparsejax.models.sparse_inference.llama_observe import ffn_weights as ffn_weights
    from sparsejax.models.sparse_inference.llama_perplexity import perplexity as perplexity
    from sparsejax.models.sparse_inference.llama_state import LlamaState as LlamaState
    from sparsejax.models.sparse_inference.llama_state import grow_state as grow_state
    from sparsejax.models.sparse_inference.llama_state import initial_state as initial_state
    from sparsejax.models.sparse_inference.llama_weights import quantize_llama as quantize_llama
    from sparsejax.models.sparse_inference.part_modules import predictor_of as predictor_of
    from sparsejax.models.sparse_inference.placement import Placement as Placement
    from sparsejax.models.sparse_inference.placement import place as place
    from sparsejax.models.sparse_inference.placement import read_activation_counts as read_activation_counts
    from sparsejax.models.sparse_inference.plain_ffn import with_plain_ffn as with_plain_ffn
    from sparsejax.models.sparse_inference.powerinfer import PowerInferPredictors as PowerInferPredictors
    from sparsejax.models.sparse_inference.powerinfer import read_powerinfer as read_powerinfer
    from sparsejax.models.sparse_inference.predictor import LowRankPredictor as LowRankPredictor
    from sparsejax.models.sparse_inference.predictor import MLPPredictor as MLPPredictor
    from sparsejax.models.sparse_inference.predictor_ahead import LookAhead as LookAhead
    from sparsejax.models.sparse_inference.predictor_exact import Dense as Dense
    from sparsejax.models.sparse_inference.predictor_exact import GateThreshold as GateThreshold
    from sparsejax.models.sparse_inference.predictor_exact import Oracle as Oracle
    from sparsejax.models.sparse_inference.predictor_quantized import (
        quantize_predictor as quantize_predictor,
    )
    from sparsejax.models.sparse_inference.rope import RopeConfig as RopeConfig
    from sparsejax.models.sparse_inference.selection import select as select
    from sparsejax.models.sparse_inference.selection import select_blocks as select_blocks
    from sparsejax.models.sparse_inference.selection import select_mask as select_mask
    from sparsejax.models.sparse_inference.statistics import PredictorStatistics as PredictorStatistics
    from sparsejax.models.sparse_inference.statistics import RunningStatistics as RunningStatistics
    from sparsejax.models.sparse_inference.statistics import predictor_statistics as predictor_statistics
    from sparsejax.models.sparse_inference.store import NeuronStore as NeuronStore
    from sparsejax.models.sparse_inference.store_ffn import StoredFFN as StoredFFN
    from sparsejax.models.sparse_inference.store_file import NeuronFile as NeuronFile
    from sparsejax.models.sparse_inference.store_file import write_neurons as write_neurons
    from sparsejax.models.sparse_inference.store_llama import StoredLlama as StoredLlama
    from sparsejax.models.sparse_inference.store_llama import llama_ffn_layers as llama_ffn_layers
    from sparsejax.models.sparse_inference.tokenizer import Tokenizer as Tokenizer
    from sparsejax.models.sparse_inference.tokenizer import read_tokenizer as read_tokenizer

_HOMES = {
    "AffineTensor": "gguf",
    "Batcher": "batching",
    "CacheStatistics": "cache_statistics",
    "Calibration": "calibration",
    "Calibrator": "calibration",
    "Compensation": "compensation",
    "Dense": "predictor_exact",
    "FFNPlan": "ffn_plan",
    "GGUFError": "gguf",
    "GGUFFile": "gguf",
    "GGUFTensor": "gguf",
    "GateThreshold": "predictor_exact",
    "Generated": "generation",
    "LlamaConfig": "llama_config",
    "LlamaLM": "llama",
    "LlamaOutput": "llama",
    "LlamaState": "llama_state",
    "LookAhead": "predictor_ahead",
    "LowRankPredictor": "predictor",
    "MLPPredictor": "predictor",
    "NeuronCounts": "hot_cold",
    "NeuronFile": "store_file",
    "NeuronStore": "store",
    "Oracle": "predictor_exact",
    "Placement": "placement",
    "PowerInferPredictors": "powerinfer",
    "PredictorStatistics": "statistics",
    "QuantizedTensor": "gguf",
    "RopeConfig": "rope",
    "RunningStatistics": "statistics",
    "SparseFFN": "ffn",
    "StoredFFN": "store_ffn",
    "StoredLlama": "store_llama",
    "Tokenizer": "tokenizer",
    "calibrate": "calibration",
    "collect_ffn_inputs": "llama_observe",
    "compensation_errors": "compensation",
    "ffn_weights": "llama_observe",
    "fit_compensation": "compensation",
    "fit_low_rank": "calibration",
    "generate": "generation",
    "grow_state": "llama_state",
    "initial_state": "llama_state",
    "llama_ffn_layers": "store_llama",
    "permute_blocks": "ffn_permute",
    "permute_ffn": "ffn_permute",
    "permute_predictor": "ffn_permute",
    "perplexity": "llama_perplexity",
    "place": "placement",
    "predicted_ffn": "ffn_paths",
    "predictor_of": "part_modules",
    "predictor_statistics": "statistics",
    "quantize_llama": "llama_weights",
    "quantize_predictor": "predictor_quantized",
    "read_activation_counts": "placement",
    "read_gguf": "gguf",
    "read_powerinfer": "powerinfer",
    "read_tokenizer": "tokenizer",
    "select": "selection",
    "select_blocks": "selection",
    "select_mask": "selection",
    "stream": "generation",
    "with_plain_ffn": "plain_ffn",
    "write_gguf": "gguf",
    "write_neurons": "store_file",
}
"""Imported when first asked for: reading a file needs no network, and running one no calibration."""

__all__ = [
    "AffineTensor",
    "Batcher",
    "CacheConfig",
    "CacheStatistics",
    "Calibration",
    "Calibrator",
    "Compensation",
    "Dense",
    "FFNPlan",
    "GGUFError",
    "GGUFFile",
    "GGUFTensor",
    "GateThreshold",
    "Generated",
    "LlamaConfig",
    "LlamaLM",
    "LlamaOutput",
    "LlamaState",
    "LookAhead",
    "LowRankPredictor",
    "MLPPredictor",
    "ModelConfig",
    "NeuronCounts",
    "NeuronFile",
    "NeuronStore",
    "Oracle",
    "Placement",
    "PowerInferPredictors",
    "PredictorStatistics",
    "QuantizedTensor",
    "RopeConfig",
    "RunningStatistics",
    "SparseFFN",
    "SparsityConfig",
    "StoredFFN",
    "StoredLlama",
    "Tokenizer",
    "calibrate",
    "coactivation_order",
    "collect_ffn_inputs",
    "compensation_errors",
    "ffn_weights",
    "fit_compensation",
    "fit_low_rank",
    "generate",
    "grow_state",
    "initial_state",
    "llama_ffn_layers",
    "permute_blocks",
    "permute_ffn",
    "permute_predictor",
    "perplexity",
    "place",
    "predicted_ffn",
    "predictor_of",
    "predictor_statistics",
    "quantize_llama",
    "quantize_predictor",
    "read_activation_counts",
    "read_gguf",
    "read_powerinfer",
    "read_tokenizer",
    "select",
    "select_blocks",
    "select_mask",
    "stream",
    "with_plain_ffn",
    "write_gguf",
    "write_neurons",
]


def __getattr__(name: str) -> Any:
    """Import the names that are used."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Public names."""
    return sorted(__all__)

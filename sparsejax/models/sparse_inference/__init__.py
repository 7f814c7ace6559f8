"""Sparse inference: FFNs that compute the neurons a predictor names (specs/sparse_inference.md)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sparsejax.models.sparse_inference.config import CacheConfig, ModelConfig, SparsityConfig
from sparsejax.ops.sparse_ffn.coactivation import coactivation_order

if TYPE_CHECKING:
    from sparsejax.models.sparse_inference.calibration.calibrate import Calibration as Calibration
    from sparsejax.models.sparse_inference.calibration.calibrate import Calibrator as Calibrator
    from sparsejax.models.sparse_inference.calibration.calibrate import calibrate as calibrate
    from sparsejax.models.sparse_inference.calibration.calibrate import fit_low_rank as fit_low_rank
    from sparsejax.models.sparse_inference.calibration.compensation import Compensation as Compensation
    from sparsejax.models.sparse_inference.calibration.compensation import (
        compensation_errors as compensation_errors,
    )
    from sparsejax.models.sparse_inference.calibration.compensation import (
        fit_compensation as fit_compensation,
    )
    from sparsejax.models.sparse_inference.calibration.statistics import (
        PredictorStatistics as PredictorStatistics,
    )
    from sparsejax.models.sparse_inference.calibration.statistics import (
        RunningStatistics as RunningStatistics,
    )
    from sparsejax.models.sparse_inference.calibration.statistics import (
        predictor_statistics as predictor_statistics,
    )
    from sparsejax.models.sparse_inference.ffn.module import SparseFFN as SparseFFN
    from sparsejax.models.sparse_inference.ffn.paths import predicted_ffn as predicted_ffn
    from sparsejax.models.sparse_inference.ffn.permute import permute_blocks as permute_blocks
    from sparsejax.models.sparse_inference.ffn.permute import permute_ffn as permute_ffn
    from sparsejax.models.sparse_inference.ffn.permute import permute_predictor as permute_predictor
    from sparsejax.models.sparse_inference.ffn.plan import FFNPlan as FFNPlan
    from sparsejax.models.sparse_inference.ffn.selection import select as select
    from sparsejax.models.sparse_inference.ffn.selection import select_blocks as select_blocks
    from sparsejax.models.sparse_inference.ffn.selection import select_mask as select_mask
    from sparsejax.models.sparse_inference.gguf import AffineTensor as AffineTensor
    from sparsejax.models.sparse_inference.gguf import GGUFError as GGUFError
    from sparsejax.models.sparse_inference.gguf import GGUFFile as GGUFFile
    from sparsejax.models.sparse_inference.gguf import GGUFTensor as GGUFTensor
    from sparsejax.models.sparse_inference.gguf import QuantizedTensor as QuantizedTensor
    from sparsejax.models.sparse_inference.gguf import read_gguf as read_gguf
    from sparsejax.models.sparse_inference.gguf import write_gguf as write_gguf
    from sparsejax.models.sparse_inference.llama.batching import Batcher as Batcher
    from sparsejax.models.sparse_inference.llama.config import LlamaConfig as LlamaConfig
    from sparsejax.models.sparse_inference.llama.generation import Generated as Generated
    from sparsejax.models.sparse_inference.llama.generation import generate as generate
    from sparsejax.models.sparse_inference.llama.generation import stream as stream
    from sparsejax.models.sparse_inference.llama.model import LlamaLM as LlamaLM
    from sparsejax.models.sparse_inference.llama.model import LlamaOutput as LlamaOutput
    from sparsejax.models.sparse_inference.llama.observe import collect_ffn_inputs as collect_ffn_inputs
    from sparsejax.models.sparse_inference.llama.observe import ffn_weights as ffn_weights
    from sparsejax.models.sparse_inference.llama.perplexity import perplexity as perplexity
    from sparsejax.models.sparse_inference.llama.plain_ffn import with_plain_ffn as with_plain_ffn
    from sparsejax.models.sparse_inference.llama.rope import RopeConfig as RopeConfig
    from sparsejax.models.sparse_inference.llama.state import LlamaState as LlamaState
    from sparsejax.models.sparse_inference.llama.state import grow_state as grow_state
    from sparsejax.models.sparse_inference.llama.state import initial_state as initial_state
    from sparsejax.models.sparse_inference.llama.weights import quantize_llama as quantize_llama
    from sparsejax.models.sparse_inference.part_modules import predictor_of as predictor_of
    from sparsejax.models.sparse_inference.powerinfer import PowerInferPredictors as PowerInferPredictors
    from sparsejax.models.sparse_inference.powerinfer import read_powerinfer as read_powerinfer
    from sparsejax.models.sparse_inference.predictor.ahead import LookAhead as LookAhead
    from sparsejax.models.sparse_inference.predictor.exact import Dense as Dense
    from sparsejax.models.sparse_inference.predictor.exact import GateThreshold as GateThreshold
    from sparsejax.models.sparse_inference.predictor.exact import Oracle as Oracle
    from sparsejax.models.sparse_inference.predictor.learned import LowRankPredictor as LowRankPredictor
    from sparsejax.models.sparse_inference.predictor.learned import MLPPredictor as MLPPredictor
    from sparsejax.models.sparse_inference.predictor.quantized import (
        quantize_predictor as quantize_predictor,
    )
    from sparsejax.models.sparse_inference.store.cache_statistics import CacheStatistics as CacheStatistics
    from sparsejax.models.sparse_inference.store.ffn import StoredFFN as StoredFFN
    from sparsejax.models.sparse_inference.store.hot_cold import NeuronCounts as NeuronCounts
    from sparsejax.models.sparse_inference.store.llama import StoredLlama as StoredLlama
    from sparsejax.models.sparse_inference.store.llama import llama_ffn_layers as llama_ffn_layers
    from sparsejax.models.sparse_inference.store.neuron_file import NeuronFile as NeuronFile
    from sparsejax.models.sparse_inference.store.neuron_file import write_neurons as write_neurons
    from sparsejax.models.sparse_inference.store.neuron_store import NeuronStore as NeuronStore
    from sparsejax.models.sparse_inference.store.placement import Placement as Placement
    from sparsejax.models.sparse_inference.store.placement import place as place
    from sparsejax.models.sparse_inference.store.placement import (
        read_activation_counts as read_activation_counts,
    )
    from sparsejax.models.sparse_inference.tokenizer.tokenizer import Tokenizer as Tokenizer
    from sparsejax.models.sparse_inference.tokenizer.tokenizer import read_tokenizer as read_tokenizer

_HOMES = {
    "AffineTensor": "gguf",
    "Batcher": "llama.batching",
    "CacheStatistics": "store.cache_statistics",
    "Calibration": "calibration.calibrate",
    "Calibrator": "calibration.calibrate",
    "Compensation": "calibration.compensation",
    "Dense": "predictor.exact",
    "FFNPlan": "ffn.plan",
    "GGUFError": "gguf",
    "GGUFFile": "gguf",
    "GGUFTensor": "gguf",
    "GateThreshold": "predictor.exact",
    "Generated": "llama.generation",
    "LlamaConfig": "llama.config",
    "LlamaLM": "llama.model",
    "LlamaOutput": "llama.model",
    "LlamaState": "llama.state",
    "LookAhead": "predictor.ahead",
    "LowRankPredictor": "predictor.learned",
    "MLPPredictor": "predictor.learned",
    "NeuronCounts": "store.hot_cold",
    "NeuronFile": "store.neuron_file",
    "NeuronStore": "store.neuron_store",
    "Oracle": "predictor.exact",
    "Placement": "store.placement",
    "PowerInferPredictors": "powerinfer",
    "PredictorStatistics": "calibration.statistics",
    "QuantizedTensor": "gguf",
    "RopeConfig": "llama.rope",
    "RunningStatistics": "calibration.statistics",
    "SparseFFN": "ffn.module",
    "StoredFFN": "store.ffn",
    "StoredLlama": "store.llama",
    "Tokenizer": "tokenizer.tokenizer",
    "calibrate": "calibration.calibrate",
    "collect_ffn_inputs": "llama.observe",
    "compensation_errors": "calibration.compensation",
    "ffn_weights": "llama.observe",
    "fit_compensation": "calibration.compensation",
    "fit_low_rank": "calibration.calibrate",
    "generate": "llama.generation",
    "grow_state": "llama.state",
    "initial_state": "llama.state",
    "llama_ffn_layers": "store.llama",
    "permute_blocks": "ffn.permute",
    "permute_ffn": "ffn.permute",
    "permute_predictor": "ffn.permute",
    "perplexity": "llama.perplexity",
    "place": "store.placement",
    "predicted_ffn": "ffn.paths",
    "predictor_of": "part_modules",
    "predictor_statistics": "calibration.statistics",
    "quantize_llama": "llama.weights",
    "quantize_predictor": "predictor.quantized",
    "read_activation_counts": "store.placement",
    "read_gguf": "gguf",
    "read_powerinfer": "powerinfer",
    "read_tokenizer": "tokenizer.tokenizer",
    "select": "ffn.selection",
    "select_blocks": "ffn.selection",
    "select_mask": "ffn.selection",
    "stream": "llama.generation",
    "with_plain_ffn": "llama.plain_ffn",
    "write_gguf": "gguf",
    "write_neurons": "store.neuron_file",
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

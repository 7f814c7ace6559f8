"""Temporal Eigenstate Networks: language models on complex linear recurrences (specs/ten.md)."""

from sparsejax.models.ten.config import EigenstateLayer, TemporalEigenstateConfig
from sparsejax.models.ten.diagonal import diagonalise
from sparsejax.models.ten.generate import generate, stream
from sparsejax.models.ten.model import TemporalEigenstateNetwork, TenOutput, head_kernel
from sparsejax.models.ten.presets import preset
from sparsejax.models.ten.spectrum import Spectrum, spectrum, state_trajectory
from sparsejax.models.ten.state import TenState, initial_state

__all__ = [
    "EigenstateLayer",
    "Spectrum",
    "TemporalEigenstateConfig",
    "TemporalEigenstateNetwork",
    "TenOutput",
    "TenState",
    "diagonalise",
    "generate",
    "head_kernel",
    "initial_state",
    "preset",
    "spectrum",
    "state_trajectory",
    "stream",
]

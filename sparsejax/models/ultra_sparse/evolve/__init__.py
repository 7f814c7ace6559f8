"""Gradient-free search over weights and index tables."""

from sparsejax.models.ultra_sparse.evolve.anneal import AnnealResult, anneal
from sparsejax.models.ultra_sparse.evolve.mutation import mutate

__all__ = ["AnnealResult", "anneal", "mutate"]

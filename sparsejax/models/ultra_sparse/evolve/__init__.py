"""Training of ultra-sparse nets: gradient-free searches, each one compiled loop, and their refinement."""

from sparsejax.models.ultra_sparse.evolve.anneal import Anneal, AnnealParams, AnnealState, anneal
from sparsejax.models.ultra_sparse.evolve.chain import Chain, Steps, start_chain, walk
from sparsejax.models.ultra_sparse.evolve.evosax_weights import evolve_weights
from sparsejax.models.ultra_sparse.evolve.genetic import Genetic, GeneticParams, genetic
from sparsejax.models.ultra_sparse.evolve.gsa import Gsa, GsaParams, gsa
from sparsejax.models.ultra_sparse.evolve.hill_climb import (
    HillClimb,
    HillClimbParams,
    HillClimbState,
    hill_climb,
)
from sparsejax.models.ultra_sparse.evolve.hybrid import (
    Hybrid,
    HybridParams,
    HybridState,
    SparseFitResult,
    sparse_fit,
)
from sparsejax.models.ultra_sparse.evolve.mutation import RULES, Draws, Rates, Rule, draw, mutate
from sparsejax.models.ultra_sparse.evolve.objective import Objective, evaluate, objective
from sparsejax.models.ultra_sparse.evolve.polish import PolishResult, polish
from sparsejax.models.ultra_sparse.evolve.population import Population
from sparsejax.models.ultra_sparse.evolve.search import Record, Search, SearchResult, run, run_chains
from sparsejax.models.ultra_sparse.evolve.tempering import (
    Tempering,
    TemperingParams,
    TemperingState,
    tempering,
)

__all__ = [
    "RULES",
    "Anneal",
    "AnnealParams",
    "AnnealState",
    "Chain",
    "Draws",
    "Genetic",
    "GeneticParams",
    "Gsa",
    "GsaParams",
    "HillClimb",
    "HillClimbParams",
    "HillClimbState",
    "Hybrid",
    "HybridParams",
    "HybridState",
    "Objective",
    "PolishResult",
    "Population",
    "Rates",
    "Record",
    "Rule",
    "Search",
    "SearchResult",
    "SparseFitResult",
    "Steps",
    "Tempering",
    "TemperingParams",
    "TemperingState",
    "anneal",
    "draw",
    "evaluate",
    "evolve_weights",
    "genetic",
    "gsa",
    "hill_climb",
    "mutate",
    "objective",
    "polish",
    "run",
    "run_chains",
    "sparse_fit",
    "start_chain",
    "tempering",
    "walk",
]

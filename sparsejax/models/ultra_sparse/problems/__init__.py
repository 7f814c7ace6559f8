"""Problems to train ultra-sparse nets on, split and scaled without leaks."""

from sparsejax.models.ultra_sparse.problems.checks import check_table
from sparsejax.models.ultra_sparse.problems.problem import Problem, RawSplit, Split, Task, build_problem
from sparsejax.models.ultra_sparse.problems.registry import PROBLEMS, make_problem, problem_options
from sparsejax.models.ultra_sparse.problems.shift import degradation, gate_changes, shift
from sparsejax.models.ultra_sparse.problems.sine import leak_columns
from sparsejax.models.ultra_sparse.problems.tables import published_split

__all__ = [
    "PROBLEMS",
    "Problem",
    "RawSplit",
    "Split",
    "Task",
    "build_problem",
    "check_table",
    "degradation",
    "gate_changes",
    "leak_columns",
    "make_problem",
    "problem_options",
    "published_split",
    "shift",
]

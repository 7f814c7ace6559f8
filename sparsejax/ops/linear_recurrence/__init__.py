"""Linear recurrences over complex states held as real and imaginary parts.

`linear_recurrence` has a diagonal transition, `dense_recurrence` mixes the eigenstates at every step.
"""

from sparsejax.ops.linear_recurrence.api import RecurrenceBackend, linear_recurrence
from sparsejax.ops.linear_recurrence.decay import Decay, Pair
from sparsejax.ops.linear_recurrence.dense import dense_recurrence
from sparsejax.ops.linear_recurrence.diagonal import Diagonal, diagonalise

__all__ = [
    "Decay",
    "Diagonal",
    "Pair",
    "RecurrenceBackend",
    "dense_recurrence",
    "diagonalise",
    "linear_recurrence",
]

"""The scan over time of `reference`, with the gradient of `adjoint`: what "auto" takes on CPU."""

from __future__ import annotations

from sparsejax.ops.linear_recurrence import reference
from sparsejax.ops.linear_recurrence.adjoint import with_adjoint

run = with_adjoint(reference.run)
"""Cost: forward as `reference`; backward one more scan and one pass over the states. The gradient that JAX
derives by itself carries the decay's gradient from step to step instead.
"""

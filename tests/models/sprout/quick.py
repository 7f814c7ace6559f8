"""``jit`` for tests of tiny networks, whose time is spent in compiling."""

from __future__ import annotations

from functools import partial

import jax

jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

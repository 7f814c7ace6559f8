"""Fixtures of the recurrence tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import pytest


@pytest.fixture
def evaluate() -> Callable[..., Any]:
    """A function's value from a compilation with little optimisation, several times faster to make."""

    def call(function: Callable, *arguments: Any) -> Any:
        options = {"xla_backend_optimization_level": 0}
        return jax.jit(function).lower(*arguments).compile(compiler_options=options)(*arguments)

    return call

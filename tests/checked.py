"""The checks of every annotated call of sparsejax in a test run: types, dtypes and shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

_CHECK = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as mypy has it


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """What `jaxtyping` calls to check a stand-in of a function: once before the call, and once after.

    Only the second one, which has the result as ``ret0`` beside all arguments, is checked: what a function
    refuses by itself then ends in its own error, and what it takes has to be what its annotations say.
    Constructors are left out: JAX rebuilds pytrees through them, with whatever stands for a leaf.
    """
    if function.__name__ == "__init__" or "ret0" not in function.__annotations__:
        return function
    return _CHECK(function)

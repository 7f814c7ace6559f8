"""The checks of annotated calls of the library in a test run: types, dtypes and shapes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Protocol, Self, get_args, get_origin, runtime_checkable

import numpy as np
from jaxtyping import AbstractArray


@runtime_checkable
class AnyArray(Protocol):
    """What stands for a `jax.Array`: an array of NumPy or a constant of a program, too, as in JAX itself."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...


@cache
def _check() -> Callable[..., Any]:
    """Made at the first call, since conftest says how JAX is to start."""
    import jax
    from beartype import BeartypeConf, FrozenDict, beartype

    whole = int | np.integer
    stand_ins = {
        jax.Array: AnyArray,
        np.ndarray: np.ndarray | np.generic,  # NumPy's arrays without axes
        int: whole,
        float: float | np.floating | whole,
    }
    return beartype(conf=BeartypeConf(hint_overrides=FrozenDict(stand_ins), is_random=False))


def _open(hint: Any) -> None:
    """Let an annotation be asked here, which is as it stands for readers and type checkers.

    Protocols learn to answer at run time, and arrays of shapes, such as ``Float[Array, "b i"]``, to take
    whatever stands for a `jax.Array`.
    """
    import jax

    if isinstance(hint, type) and getattr(hint, "_is_protocol", False):
        runtime_checkable(hint)
    if isinstance(hint, type) and issubclass(hint, AbstractArray) and hint.array_type is jax.Array:
        hint.array_type = AnyArray
    for part in (get_origin(hint), *get_args(hint), getattr(hint, "__bound__", None)):
        if part is not None:
            _open(part)


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """What `jaxtyping` calls to check a stand-in of a function: once before the call, and once after.

    Only the second one, which has the result as ``ret0`` beside all arguments, is checked: what a function
    refuses by itself then ends in its own error, and what it takes has to be what its annotations say.
    Constructors are left out: JAX rebuilds pytrees through them, with whatever stands for a leaf. So are
    methods that give ``Self``, which beartype knows in decorated classes alone.
    """
    hints = function.__annotations__
    if function.__name__ == "__init__" or "ret0" not in hints or Self in hints.values():
        return function
    for hint in hints.values():
        _open(hint)
    return _check()(function)

"""The checks of annotated calls of `sparsejax.ops` in a test run: types, dtypes and shapes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class AnyArray(Protocol):
    """What stands for a `jax.Array`: an array of NumPy or a constant of a program, too, as in JAX itself.

    Aliases with shapes, such as ``Float[Array, "b i"]``, still ask for a `jax.Array`.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...


@cache
def _check() -> Callable[..., Any]:
    """Made at the first call, since conftest says how JAX is to start."""
    import jax
    from beartype import BeartypeConf, FrozenDict, beartype

    arrays = FrozenDict({jax.Array: AnyArray})
    return beartype(conf=BeartypeConf(is_pep484_tower=True, hint_overrides=arrays))  # an int is a float


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """What `jaxtyping` calls to check a stand-in of a function: once before the call, and once after.

    Only the second one, which has the result as ``ret0`` beside all arguments, is checked: what a function
    refuses by itself then ends in its own error, and what it takes has to be what its annotations say.
    Constructors are left out: JAX rebuilds pytrees through them, with whatever stands for a leaf.
    """
    if function.__name__ == "__init__" or "ret0" not in function.__annotations__:
        return function
    return _check()(function)

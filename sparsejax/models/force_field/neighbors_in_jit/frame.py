"""Lattice geometry inside jit: the inverse and heights of a cell, and a cell for what repeats in part."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def inverse(cell: Array) -> Array:
    """Inverse of a cell, by cross products: no solver is called.

    Args:
      cell: (3, 3), invertible.

    Returns:
      (3, 3): ``positions @ inverse`` are fractional coordinates.

    Example:
      >>> inverse(jnp.diag(jnp.array([2.0, 4.0, 5.0]))).diagonal().tolist()
      [0.5, 0.25, 0.20000000298023224]
    """
    a, b, c = cell
    faces = jnp.stack((jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)), axis=1)
    return faces / jnp.dot(a, faces[:, 0])


def heights(inverse_cell: Array) -> Array:
    """Distances between opposite faces of a cell, from its inverse.

    Args:
      inverse_cell: (3, 3).

    Returns:
      (3,), A.

    Example:
      >>> heights(jnp.diag(jnp.array([0.5, 0.25, 0.125]))).tolist()
      [2.0, 4.0, 8.0]
    """
    return 1.0 / jnp.linalg.norm(inverse_cell, axis=0)


def complete_cell(cell: Array, pbc: tuple[bool, bool, bool]) -> Array:
    """Unit vectors, at right angles to all others, along the axes that do not repeat.

    Args:
      cell: (3, 3), A; rows that do not repeat are not read.
      pbc: the directions that repeat.

    Returns:
      (3, 3), A; what `structure.periodic_cell` is outside jit, up to signs and the choice within a plane.

    Example:
      >>> complete_cell(jnp.diag(jnp.array([9.0, 0.0, 9.0])), (True, False, True))[1].tolist()
      [0.0, 1.0, 0.0]
    """
    repeating = [axis for axis in range(3) if pbc[axis]]
    if len(repeating) == 3:
        return cell
    if not repeating:
        return jnp.eye(3, dtype=cell.dtype)
    if len(repeating) == 2:
        missing = ({0, 1, 2} - set(repeating)).pop()
        normal = jnp.cross(cell[(missing + 1) % 3], cell[(missing + 2) % 3])
        return cell.at[missing].set(normal / jnp.linalg.norm(normal))
    along = cell[repeating[0]]
    aside = jnp.cross(along, jnp.eye(3, dtype=cell.dtype)[jnp.argmin(jnp.abs(along))])
    aside = aside / jnp.linalg.norm(aside)
    other = jnp.cross(along, aside)
    first, second = ((repeating[0] + step) % 3 for step in (1, 2))
    return cell.at[first].set(aside).at[second].set(other / jnp.linalg.norm(other))

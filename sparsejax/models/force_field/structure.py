"""Atoms in a box: what every function of the force field reads, checked once at the door."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sparsejax.models.force_field.config import ForceFieldConfig

SYMBOLS = tuple(
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr "
    "Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb "
    "Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf "
    "Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og".split()
)
"""Symbols of the elements by atomic number."""

SAME_SITE = 1e-6
"""A; atoms closer than this stand on one site."""

_FLAT = 1e-6  # volume of a cell over the product of its edges, below which it counts as singular


class Structure(NamedTuple):
    """Atoms, and the cell that repeats them.

    Attributes:
      species: (n,) int32, atomic numbers.
      positions: (n, 3) float64, A; periodic atoms may lie outside the cell.
      cell: (3, 3) float64, A, one lattice vector per row; None where there is none. Rows of directions
        that do not repeat may be zero.
      pbc: (3,) bool, the directions that repeat.

    Example:
      >>> Structure(np.array([8]), np.zeros((1, 3)), None, np.zeros(3, bool)).num_atoms
      1
    """

    species: np.ndarray
    positions: np.ndarray
    cell: np.ndarray | None
    pbc: np.ndarray

    @property
    def num_atoms(self) -> int:
        """Number of atoms n."""
        return len(self.species)

    @property
    def periodic(self) -> bool:
        """Whether any direction repeats."""
        return bool(self.pbc.any())


def as_structure(atoms: Any) -> Structure:
    """Read atoms of ASE, or anything with the same attributes.

    Args:
      atoms: a `Structure`, or an object with ``numbers`` (n,) and ``positions`` (n, 3) in A, and perhaps
        ``cell`` (three lengths, or three rows; zeros stand for no cell) and ``pbc``.

    Returns:
      The same atoms as plain arrays; positions and cell are copied.

    Raises:
      ValueError: an attribute is missing, or its shape does not fit.

    Example:
      >>> class Water: numbers, positions = [8, 1, 1], [[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]]
      >>> as_structure(Water).species
      array([8, 1, 1], dtype=int32)
    """
    numbers: Any
    pbc: Any
    if isinstance(atoms, Structure):
        numbers, positions, cell, pbc = atoms
    elif hasattr(atoms, "numbers") and hasattr(atoms, "positions"):
        numbers, positions = atoms.numbers, atoms.positions
        cell, pbc = getattr(atoms, "cell", None), getattr(atoms, "pbc", False)
    else:
        raise ValueError(
            f"a {type(atoms).__name__} is no structure; give ase.Atoms, or an object with numbers, positions"
        )
    numbers, positions = np.array(numbers), np.array(positions, np.float64)
    positions = positions.reshape(0, 3) if not positions.size else positions
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise ValueError(f"atomic numbers must be integers (n,), not {numbers.dtype} {numbers.shape}")
    if positions.shape != (len(numbers), 3):
        raise ValueError(f"positions of shape {positions.shape} do not fit {len(numbers)} atomic numbers")
    pbc = np.array(np.broadcast_to(np.asarray(pbc, bool), 3))
    return Structure(numbers.astype(np.int32), positions, _as_cell(cell), pbc)


def as_atoms(structure: Structure) -> Any:
    """The same atoms as a new `ase.Atoms`: the inverse of `as_structure`.

    Args:
      structure: to copy.

    Raises:
      ModuleNotFoundError: ase is missing (extra ``force-field``).

    Example:
      >>> as_atoms(Structure(np.array([8]), np.zeros((1, 3)), None, np.zeros(3, bool))).get_chemical_formula()
      'O'
    """
    from ase import Atoms

    return Atoms(structure.species, structure.positions, cell=structure.cell, pbc=structure.pbc)


def _as_cell(cell: Any) -> np.ndarray | None:
    if cell is None:
        return None
    array = np.array(cell, np.float64)
    if array.shape == (3,):
        array = np.diag(array)
    if array.shape != (3, 3):
        raise ValueError(f"a cell must be three lengths or three rows of three, not of shape {array.shape}")
    return array if array.any() else None


def check_structure(structure: Structure, config: ForceFieldConfig, *, name: str = "structure") -> None:
    """Refuse a structure that the network cannot answer for.

    Args:
      structure: to look at.
      config: of the network: how many elements its table holds, and which of them were trained.
      name: what the message calls the structure.

    Raises:
      ValueError: no atoms; positions that are no numbers; an element outside the table or never trained;
        a cell that is missing, zero or singular though something repeats; two atoms on one site.

    Example:
      >>> ghost = Structure(np.array([0]), np.zeros((1, 3)), None, np.zeros(3, bool))
      >>> check_structure(ghost, ForceFieldConfig(max_z=100))
      Traceback (most recent call last):
      ValueError: structure: atom 0 has atomic number 0; this network's table holds 1 to 100
    """
    if structure.num_atoms == 0:
        raise ValueError(f"{name}: has no atoms; at least one is needed")
    check_geometry(structure, name=name)
    check_species(structure.species, config, name=name)
    _check_sites(structure, name)


def check_geometry(structure: Structure, *, name: str = "structure") -> None:
    """Refuse positions or a cell in which no distance can be measured.

    Args:
      structure: to look at; it may be empty.
      name: what the message calls the structure.

    Raises:
      ValueError: NaN or infinite positions; a cell that is missing, zero or singular though something
        repeats.

    Example:
      >>> flat = Structure(np.array([8]), np.zeros((1, 3)), np.diag([9.0, 9.0, 0.0]), np.ones(3, bool))
      >>> check_geometry(flat)
      Traceback (most recent call last):
      ValueError: structure: its cell has no extent along c, which repeats; set a cell, or pbc=False
    """
    bad = ~np.isfinite(structure.positions)
    if bad.any():
        atom, axis = np.argwhere(bad)[0]
        value = structure.positions[atom, axis]
        raise ValueError(f"{name}: atom {atom} has the {'xyz'[axis]} position {value}")
    if not structure.periodic:
        return
    if structure.cell is None:
        raise ValueError(f"{name}: pbc is set but there is no cell; set a cell, or pbc=False")
    rows = structure.cell[structure.pbc]
    if not np.isfinite(rows).all():
        raise ValueError(f"{name}: its cell holds NaN or infinite numbers")
    lengths = np.linalg.norm(rows, axis=1)
    if not lengths.all():
        axis = np.flatnonzero(structure.pbc)[np.argmin(lengths)]
        raise ValueError(
            f"{name}: its cell has no extent along {'abc'[axis]}, which repeats; set a cell, or pbc=False"
        )
    # The product of the singular values is the volume that unit vectors along the edges span.
    if np.prod(np.linalg.svd(rows / lengths[:, None], compute_uv=False)) < _FLAT:
        raise ValueError(f"{name}: its cell is singular: the lattice vectors that repeat lie in one plane")


def periodic_cell(structure: Structure) -> np.ndarray:
    """The cell with unit vectors, at right angles to all others, where nothing repeats.

    Fractional coordinates and heights along the axes that repeat then depend on these axes alone: a slab
    may leave its third lattice vector away, or tilt it as it likes.

    Args:
      structure: with a geometry that `check_geometry` accepts.

    Returns:
      (3, 3) float64, A, invertible.

    Example:
      >>> pbc = np.array([True, True, False])
      >>> slab = Structure(np.array([8]), np.zeros((1, 3)), np.diag([9.0, 9.0, 0.0]), pbc)
      >>> np.abs(periodic_cell(slab))[2]
      array([0., 0., 1.])
    """
    if structure.cell is None or not structure.periodic:
        return np.eye(3)
    cell = structure.cell.copy()
    if not structure.pbc.all():
        repeating = structure.cell[structure.pbc]
        cell[~structure.pbc] = np.linalg.svd(repeating)[2][len(repeating) :]
    return cell


def heights(cell: np.ndarray) -> np.ndarray:
    """Distances between opposite faces of a cell.

    Args:
      cell: (3, 3), A, invertible.

    Returns:
      (3,) float64, A.

    Example:
      >>> heights(np.array([[4.0, 0, 0], [3.0, 4.0, 0], [0, 0, 9.0]]))
      array([3.2, 4. , 9. ])
    """
    return 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)


def check_species(species: np.ndarray, config: ForceFieldConfig, *, name: str = "structure") -> None:
    """Refuse elements that the network's table or its training does not have.

    Args:
      species: (n,) atomic numbers.
      config: of the network.
      name: what the message calls the atoms.

    Raises:
      ValueError: names the first atom, or the elements.

    Example:
      >>> check_species(np.array([1, 8]), ForceFieldConfig(species=(1, 6, 8)))
    """
    outside = np.flatnonzero((species < 1) | (species > config.max_z))
    if outside.size:
        raise ValueError(
            f"{name}: atom {outside[0]} has atomic number {species[outside[0]]}; this network's table holds "
            f"1 to {config.max_z}"
        )
    if config.species is None:
        return
    unknown = sorted(set(species.tolist()) - set(config.species))
    if unknown:
        trained = symbols_of(config.species)
        raise ValueError(f"{name}: holds {symbols_of(unknown)}; this network was trained on {trained} only")


def symbols_of(numbers: Any) -> str:
    """Symbols of elements in one line; numbers that no element has as they are.

    Example:
      >>> symbols_of([8, 1, 119])
      'O, H, Z=119'
    """
    return ", ".join(SYMBOLS[number] if number < len(SYMBOLS) else f"Z={number}" for number in numbers)


def _check_sites(structure: Structure, name: str) -> None:
    from sparsejax.models.force_field.neighbors import edge_list  # which is built on this file

    pairs = edge_list(structure, SAME_SITE)
    if len(pairs.senders):
        first, second = sorted((int(pairs.receivers[0]), int(pairs.senders[0])))
        which = f"atoms {first} and {second}" if first != second else f"atom {first} and its own image"
        raise ValueError(f"{name}: {which} are on one site; move or remove one of them")

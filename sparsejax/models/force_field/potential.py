"""The force field as a user holds it: structures in, energies, forces and stress out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jraph import GraphsTuple

from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.models.force_field.config import ForceFieldConfig
from sparsejax.models.force_field.packing import Packed, pack
from sparsejax.models.force_field.prediction import (
    Filters,
    Prediction,
    energy_of_rows,
    predict_graph,
    predict_rows,
)
from sparsejax.models.force_field.rotations import averaged, rotated, rotations
from sparsejax.models.force_field.structure import Structure, as_structure, check_structure
from sparsejax.models.force_field.tables import FilterKind, choose_filters
from sparsejax.typing import Params

__all__ = [
    "ForceField",
    "Prediction",
    "energy_of_rows",
    "predict_graph",
    "predict_rows",
]

RotationAverage = Literal["cube"] | int | None


@dataclasses.dataclass(frozen=True)
class ForceField:
    """A network with its parameters, ready for structures.

    Attributes:
      config: sizes and kind.
      params: of `StudentForceField`.
      filters: tables of the filters; None computes them.

    Example:
      >>> import sparsejax as sj
      >>> from ase.build import molecule
      >>> field = ForceField.from_checkpoint(sj.load("checkpoints/ultra_tiny_gfn2.pt"))
      >>> field.predict(molecule("H2O")).forces.shape
      (3, 3)

    Source: specs/force_field.md sections 1, 2 and 10.
    """

    config: ForceFieldConfig
    params: Params
    filters: Filters | None = None

    @classmethod
    def from_checkpoint(
        cls,
        ck: Checkpoint,
        *,
        filter: FilterKind = "auto",  # noqa: A002 - the word that the paper and the tables use
        dtype: Any = None,
    ) -> ForceField:
        """The force field of a checkpoint.

        Args:
          ck: from `sparsejax.load`.
          filter: "exact" computes the filters of the distance, "table" reads them from tables that are
            verified here; "auto" is what is faster.
          dtype: of the computation; None is that of the parameters.

        Raises:
          ValueError: the checkpoint is of another family, ``dtype`` is float64 without ``jax_enable_x64``, or
            a table is not as exact as it should be.
        """
        if ck.kind != "force_field":
            raise ValueError(f"the checkpoint is of the kind {ck.kind!r}, not 'force_field'")
        params = ck.params
        if dtype is not None:
            if jax.dtypes.canonicalize_dtype(dtype) != np.dtype(dtype):
                raise ValueError(f"dtype={dtype!r} needs jax.config.update('jax_enable_x64', True)")
            params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
        return cls(ck.config, params, choose_filters(ck.config, params, filter))

    @property
    def dtype(self) -> np.dtype:
        """Of the computation."""
        return np.dtype(self.params["embedding"]["embedding"].dtype)

    def predict(self, atoms: Any, *, rotation_average: RotationAverage = None) -> Any:
        """Energies, forces and stress of one structure or of many.

        Molecules are computed together, in blocks of similar size; shapes are padded to few sizes, so that
        little is compiled.

        Args:
          atoms: ase.Atoms or a `Structure`, or a sequence of them.
          rotation_average: average over the 24 rotations of a cube ("cube"), or over so many drawn ones.
            The imported networks ("cartesian") change their energies when a molecule is turned:
            ``energy_spread`` says by how much.

        Returns:
          a `Prediction` of NumPy arrays with energy () and stress (6,), None for what does not repeat in all
          three directions; or a list of them.

        Raises:
          ValueError: a structure that cannot be right, see `check_structure`, or a result that is no number.
        """
        single = not isinstance(atoms, Sequence) or isinstance(atoms, Structure)
        if single and not hasattr(atoms, "positions"):
            raise ValueError(f"atoms must be ase.Atoms, a Structure or a sequence of them, not {type(atoms)}")
        given = [as_structure(one) for one in ([atoms] if single else atoms)]
        for number, structure in enumerate(given):
            name = "structure" if single else f"structure {number}"
            check_structure(structure, self.config, name=name)
        turns = rotations(rotation_average)
        turned = [rotated(structure, turn) for structure in given for turn in turns]
        found = self._predicted(turned)
        if rotation_average is not None:
            found = [averaged(found[at : at + len(turns)], turns) for at in range(0, len(found), len(turns))]
        return found[0] if single else found

    def predict_graph(self, graph: GraphsTuple, *, stress: bool = False) -> Prediction:
        """The prediction of a padded batch; pure, may be traced.

        Args:
          graph: from `batch_graphs`.
          stress: compute it.
        """
        return predict_graph(self.config, self.params, graph, filters=self.filters, stress=stress)

    def calculator(self, **options: Any) -> Any:
        """An ASE calculator; see `sparsejax.models.force_field.calculator.ForceFieldCalculator`."""
        from sparsejax.models.force_field.calculator import ForceFieldCalculator

        return ForceFieldCalculator(self, **options)

    def hessian(self, atoms: Any) -> np.ndarray:
        """Second derivatives of the energy by positions.

        Args:
          atoms: ase.Atoms or a `Structure`.

        Returns:
          (n, 3, n, 3) eV/A^2.

        Raises:
          ValueError: a structure that cannot be right.
        """
        packed = self._packed_one(atoms)
        found = _hessian(self.config, self.params, self.filters, packed)
        n = packed.counts[0]
        return np.asarray(found)[:n, :, :n]

    def hessian_vector_product(self, atoms: Any, direction: Any) -> np.ndarray:
        """The Hessian times one displacement of all atoms, for the price of two gradients.

        Args:
          atoms: ase.Atoms or a `Structure`.
          direction: (n, 3).

        Returns:
          (n, 3) eV/A^2 times the unit of the direction.

        Raises:
          ValueError: a structure that cannot be right, or a direction of another shape.
        """
        packed, n = self._packed_one(atoms), len(as_structure(atoms).species)
        if np.shape(direction) != (n, 3):
            raise ValueError(f"direction must have shape {(n, 3)}, not {np.shape(direction)}")
        padded = np.zeros(packed.positions.shape, packed.positions.dtype)
        padded[:n] = direction
        return np.asarray(_hvp(self.config, self.params, self.filters, packed, padded))[:n]

    def _packed_one(self, atoms: Any) -> Packed:
        structure = as_structure(atoms)
        check_structure(structure, self.config)
        ((packed, _),) = pack([structure], self.config.cutoff, self.dtype)
        return packed

    def _predicted(self, structures: list[Structure]) -> list[Prediction]:
        results: list[Prediction | None] = [None] * len(structures)
        for packed, places in pack(structures, self.config.cutoff, self.dtype):
            stress = packed.cell is not None and bool(structures[places[0]].pbc.all())
            found = jax.device_get(predict_packed(self.config, stress, self.params, self.filters, packed))
            for number, place in enumerate(places):
                results[place] = checked(unpacked(found, packed, number))
        return [result for result in results if result is not None]


def unpacked(found: Prediction, packed: Packed, number: int) -> Prediction:
    """The prediction of one of the structures that were packed together."""
    atoms = slice(packed.starts[number], packed.starts[number] + packed.counts[number])
    stress = None if found.stress is None else found.stress[number]
    return Prediction(found.energy[number], found.forces[atoms], stress, found.atomic_energies[atoms])


def checked(prediction: Prediction, *, name: str = "") -> Prediction:
    """The same prediction, if it is one.

    Args:
      prediction: of one structure.
      name: what the message calls the structure; without one it does not call it.

    Raises:
      ValueError: the energy or a force is NaN or infinite.
    """
    if not (np.isfinite(prediction.energy) and np.isfinite(prediction.forces).all()):
        told = f"{name}: " if name else ""
        raise ValueError(
            f"{told}the energy or a force is no number: atoms are too close for the network's range"
        )
    return prediction


@partial(jax.jit, static_argnums=(0, 1))
def predict_packed(
    config: ForceFieldConfig, stress: bool, params: Params, filters: Filters | None, packed: Packed
) -> Prediction:
    """The prediction of structures packed together, padding included, compiled once per shape.

    Args:
      config: sizes and kind.
      stress: compute it; needs cells.
      params: of `StudentForceField`.
      filters: see `atomic_energies`.
      packed: from `sparsejax.models.force_field.packing`.
    """
    return predict_rows(
        config,
        params,
        packed.species,
        packed.positions,
        packed.neighbors,
        graph_of_atom=packed.graph_of_atom,
        num_graphs=len(packed.starts),
        cell=packed.cell,
        filters=filters,
        stress=stress,
    )


def _total(
    config: ForceFieldConfig, params: Params, filters: Filters | None, packed: Packed, positions: Array
) -> Array:
    cell = None if packed.cell is None else packed.cell[packed.graph_of_atom]
    return energy_of_rows(
        config, params, packed.species, positions, packed.neighbors, cell=cell, filters=filters
    ).sum()


@partial(jax.jit, static_argnums=0)
def _hvp(
    config: ForceFieldConfig, params: Params, filters: Filters | None, packed: Packed, direction: Array
) -> Array:
    gradient = jax.grad(partial(_total, config, params, filters, packed))
    # Reverse over reverse: the sums over neighbours have no forward mode.
    return jax.grad(lambda positions: jnp.vdot(gradient(positions), direction))(packed.positions)


@partial(jax.jit, static_argnums=0)
def _hessian(config: ForceFieldConfig, params: Params, filters: Filters | None, packed: Packed) -> Array:
    gradient = jax.grad(partial(_total, config, params, filters, packed))
    return jax.jacrev(gradient)(packed.positions)

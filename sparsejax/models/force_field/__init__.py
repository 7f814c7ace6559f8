"""A message-passing force field: energies, forces, stress, dynamics, distillation (specs/force_field.md)."""

from sparsejax.models.force_field.config import ForceFieldConfig
from sparsejax.models.force_field.model import StudentForceField
from sparsejax.models.force_field.potential import ForceField, Prediction

__all__ = ["ForceField", "ForceFieldConfig", "Prediction", "StudentForceField"]

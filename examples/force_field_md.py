"""A molecule in motion: predict, relax, and heat eight copies of it to 300 K in one compiled loop.

python examples/force_field_md.py [FILE] [PICOSECONDS]
"""

import sys
import time

import numpy as np
from ase.build import molecule

import sparsejax as sj
from sparsejax.models.force_field import ForceField, md

ck = sj.load(sys.argv[1] if len(sys.argv) > 1 else "checkpoints/ultra_tiny_gfn2.pt")
steps = int(2000 * float(sys.argv[2] if len(sys.argv) > 2 else 1.0))  # of half a femtosecond
field = ForceField.from_checkpoint(ck)

ethanol = molecule("CH3CH2OH")
found = field.predict(ethanol)
print(f"ethanol: {found.energy:.3f} eV, largest force {np.linalg.norm(found.forces, axis=1).max():.3f} eV/A")

# FIRE on the device; the result is an ase.Atoms that carries energy and forces.
relaxed = md.minimize(field, ethanol, steps=500, fmax=0.02)
print(
    f"relaxed in {relaxed.step[-1]} steps by {found.energy - relaxed.potential[-1]:.3f} eV; "
    f"O-H {relaxed.atoms.get_distance(2, 3):.3f} A"  # atoms 2 and 3 of ASE's ethanol
)


def hydroxyl(state, system):
    """Length of the O-H bond of each copy, looked at inside the compiled loop."""
    bond = state.positions[:, 3] - state.positions[:, 2]
    return (bond**2).sum(-1) ** 0.5


# Nothing leaves the device on the way but the records of every tenth step.
start = time.perf_counter()
hot = md.nvt(
    field,
    relaxed.atoms,
    steps=steps,
    temperature=300.0,
    friction=0.02,
    replicas=8,
    every=10,
    observers={"hydroxyl": hydroxyl},
)
seconds = time.perf_counter() - start
late = slice(len(hot.step) // 2, None)
print(
    f"NVT: 8 copies, {steps} steps each in {seconds:.1f} s with compilation; second half "
    f"{hot.temperature[late].mean():.0f} K, O-H {hot.observed['hydroxyl'][late].mean():.3f} "
    f"+- {hot.observed['hydroxyl'][late].std():.3f} A"
)

"""Units inside the loops: eV, A and amu, so that a unit of time is A sqrt(amu / eV) = 10.18 fs.

They are ASE's own, to the last digit (CODATA 2014), so that a run here and a run there step alike and the
velocities of `ase.Atoms` need no factor.
"""

FEMTOSECOND = 0.09822694788464063
"""Units of time in a femtosecond."""

BOLTZMANN = 8.617330337217213e-05
"""eV/K."""

GPA = 0.006241509125883258
"""eV/A^3 in a gigapascal: ``pressure=2 * GPA``."""

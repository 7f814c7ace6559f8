"""Ultra-sparse nets beside numba, NumPy, C and torch."""

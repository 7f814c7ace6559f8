"""The same nets and expansions in NumPy, numba and PyTorch, written as well as we can."""

"""Numerical kernels of the model families, each with one signature and several backends."""

"""Neighbour lists that are built inside jit: which pairs are near, as bits, and bits to rows of slots.

Written for `neighbors_jit`, which decides when to build and with which capacities.
"""

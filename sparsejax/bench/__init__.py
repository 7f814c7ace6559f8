"""Measurements beside peers written by us: one module per family, each with ``run(quick) -> rows``."""

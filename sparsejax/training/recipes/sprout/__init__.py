"""Training and reading of SPROUT networks."""

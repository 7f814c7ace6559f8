"""SPROUT beside dense transformers of Flax and torch."""

"""Temporal Eigenstate Networks beside torch and a transformer."""

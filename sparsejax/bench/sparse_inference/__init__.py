"""Sparse inference beside dense products, torch and llama.cpp."""

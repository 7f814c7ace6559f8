"""Neurons that live in host memory or in a file, of which those of use are on the device."""

"""Text through decoders: calibration of their predictors, generation, quality, shipped files."""

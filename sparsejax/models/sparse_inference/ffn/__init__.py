"""The feed-forward part of which each token computes the neurons that a predictor names."""

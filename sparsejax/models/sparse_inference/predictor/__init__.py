"""Predictors: from an FFN's inputs, a score for each of its neurons."""

"""From samples of an FFN's inputs to a predictor, its threshold, and what it is worth."""

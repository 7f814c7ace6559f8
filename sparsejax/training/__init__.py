"""Training that knows no model: compiled rounds, gradient steps, text, logs, run folders; see ``recipes``."""

"""Training loops that know no model: compiled rounds, logs, resumable folders, progress; see ``recipes``."""

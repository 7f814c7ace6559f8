"""Reading, converting and writing checkpoints; knows no model."""

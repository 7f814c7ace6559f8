"""What training refuses, told in one line."""


class RunError(ValueError):
    """A folder, log or saved state that this run cannot use."""

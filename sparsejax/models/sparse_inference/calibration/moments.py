"""Means and products of samples, summed as they come."""

from __future__ import annotations

import numpy as np

_ROWS = 1024  # of one product: few enough that its float64 copy stays small
_WIDE = 1 << 24  # most numbers of a product that is summed in float64 when it need not be


class Moments:
    """Means, and sums of products about them, of what predictors read and of what they are to guess.

    Memory is that of the products, whatever the number of samples. Products of the inputs are summed in
    float64, since they are to be inverted; those with targets in float32 where they are large.

    Attributes:
      count: samples so far.

    Example:
      >>> moments = Moments(2, 1)
      >>> moments.add(np.array([[1.0, 0.0], [3.0, 2.0]]), np.array([[5.0], [7.0]]))
      >>> moments.mean_x.tolist(), moments.products().tolist(), moments.products_with_y().tolist()
      ([2.0, 1.0], [[2.0, 2.0], [2.0, 2.0]], [[2.0], [2.0]])
    """

    def __init__(self, inputs: int, targets: int | None = None):
        """No samples yet.

        Args:
          inputs: d.
          targets: e; None where the targets are the inputs themselves.
        """
        self.count = 0
        self._inputs, self._targets = inputs, targets
        self._sum_x, self._products = np.zeros(inputs), np.zeros((inputs, inputs))
        self._shift_x = np.zeros(inputs)
        if targets is not None:
            self._sum_y, self._shift_y = np.zeros(targets), np.zeros(targets)
            self._dtype = np.float64 if inputs * targets <= _WIDE else np.float32
            self._with_y = np.zeros((inputs, targets), self._dtype)

    def add(self, x: np.ndarray, y: np.ndarray | None = None) -> None:
        """Samples (n, d), and their targets (n, e) if there are any."""
        if not len(x):
            return
        if not self.count:  # products about a point nearby lose no digits to a large mean
            self._shift_x = np.mean(x[:_ROWS], axis=0, dtype=np.float64)
            if y is not None:
                self._shift_y = np.mean(y[:_ROWS], axis=0, dtype=np.float64)
        for start in range(0, len(x), _ROWS):
            part = x[start : start + _ROWS] - self._shift_x
            self.count += len(part)
            self._sum_x += part.sum(axis=0)
            self._products += part.T @ part
            if y is not None:
                other = y[start : start + _ROWS] - self._shift_y
                self._sum_y += other.sum(axis=0)
                self._with_y += part.T.astype(self._dtype, copy=False) @ other.astype(self._dtype, copy=False)

    @property
    def mean_x(self) -> np.ndarray:
        """Of the inputs (d,)."""
        self._check()
        return self._shift_x + self._sum_x / self.count

    @property
    def mean_y(self) -> np.ndarray:
        """Of the targets (e,)."""
        self._check()
        return self.mean_x if self._targets is None else self._shift_y + self._sum_y / self.count

    def products(self) -> np.ndarray:
        """Sums (d, d) of the products of inputs, about their mean."""
        self._check()
        return self._products - np.outer(self._sum_x, self._sum_x / self.count)

    def products_with_y(self) -> np.ndarray:
        """Sums (d, e) of the products of inputs and targets, about their means."""
        self._check()
        if self._targets is None:
            return self.products()
        drift = np.outer(self._sum_x, self._sum_y / self.count).astype(self._dtype, copy=False)
        return self._with_y - drift

    def _check(self) -> None:
        if not self.count:
            raise ValueError("there are no samples")

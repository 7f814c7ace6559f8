"""A line of what is noisy, such as the loss of every training step."""

from __future__ import annotations

from typing import Any

import numpy as np

_PARTS = 50


def noisy_curve(
    axis: Any, steps: np.ndarray, values: np.ndarray, *, unit: str = "steps", smooth: bool = True
) -> None:
    """Draw the training's values faintly, and over them their mean over a fiftieth of the run.

    Args:
      axis: of a figure.
      steps: (n,) at which they were told.
      values: (n,) of training.
      unit: what the window of the mean is counted in, for the legend.
      smooth: draw the mean; one line is drawn without, and where there are few values.
    """
    window = max(1, len(values) // _PARTS) if smooth else 1
    faint = {"linewidth": 0.8, "alpha": 0.35} if window > 1 else {"linewidth": 1.5}
    axis.plot(steps, values, color="tab:blue", label="training", **faint)
    if window > 1:
        mean = np.convolve(values, np.ones(window) / window, mode="valid")
        told = f"training, mean of {window} {unit}"
        axis.plot(steps[window - 1 :], mean, color="tab:blue", linewidth=1.8, label=told)

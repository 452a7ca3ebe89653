"""Where the pixels lie: their positions, and their positions and colours, in standard deviations of the kernels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mupvss.crf.presets import Strengths

MeanField = Callable[[np.ndarray, int], np.ndarray]
"""What a backend makes of a picture: log-probabilities (G, L, n) float32 of G questions and a number of steps -> probabilities
(G, L, n) float32."""


def bilateral_features(image: np.ndarray, strengths: Strengths) -> np.ndarray:
    """Positions and colours (n, 5) float32, in standard deviations."""
    h, w = image.shape[:2]
    found = np.empty((h, w, 5), np.float32)
    found[..., 0] = np.arange(w, dtype=np.float32) / np.float32(strengths.bilateral_xy)
    found[..., 1] = (np.arange(h, dtype=np.float32) / np.float32(strengths.bilateral_xy))[:, None]
    found[..., 2:] = image
    found[..., 2:] /= np.float32(strengths.bilateral_rgb)
    return found.reshape(-1, 5)


def gaussian_features(height: int, width: int, deviation: float) -> np.ndarray:
    """Positions (n, 2) float32, in standard deviations."""
    y, x = np.mgrid[:height, :width].astype(np.float32) / np.float32(deviation)
    return np.stack((x.ravel(), y.ravel()), 1)

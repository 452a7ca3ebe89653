"""The dense-CRF settings of the literature, and the features of pixels in units of the kernels' deviations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mupvss.errors import UserError


@dataclass(frozen=True)
class Strengths:
    """Standard deviations in pixels and grey levels, and Potts weights, of the two kernels."""

    gaussian_xy: float
    gaussian_weight: float
    bilateral_xy: float
    bilateral_rgb: float
    bilateral_weight: float

    def reduced(self, factor: int) -> Strengths:
        """For a picture whose sides are divided by `factor`: each kernel reaches as far in the scene as before, but no less than
        the next pixel. Without this, masks of the VOC animals at half size are half a point worse (lab note 21)."""
        narrow, wide = (max(1.0, extent / factor) for extent in (self.gaussian_xy, self.bilateral_xy))
        return replace(self, gaussian_xy=narrow, bilateral_xy=wide) if factor > 1 else self


PRESETS: dict[str, Strengths] = {
    "psa": Strengths(3, 3, 80, 13, 10),
    "mctformer-test": Strengths(4, 3, 83, 5, 3),
    "irn": Strengths(3, 3, 50, 5, 10),
    "clip-es": Strengths(1, 3, 67, 3, 4),
    "toco": Strengths(1, 1, 121, 5, 4),
}
"""psa: PSA, MCTformer, CTI; mctformer-test: MCTformer's segmentation test; irn: IRN, ReCAM, LPCAM, POT, which start from
labels of certainty 0.7; clip-es: CLIP-ES, MoRe; toco: ToCo, SeCo, DuPL."""

CERTAINTY = 0.7
"""Probability of a label when the CRF starts from labels."""
EPSILON = 1e-5
"""Smaller probabilities are raised to this value, so that every label can still win."""


MeanField = Callable[[np.ndarray, int], np.ndarray]
"""What a backend prepares for a picture: a function from log-probabilities (G, L, n) float32, of G sets, and a number of steps to
probabilities (G, L, n) float32."""


def preset(name: str) -> Strengths:
    """UserError if there is none of this name."""
    if name not in PRESETS:
        raise UserError(f"no CRF preset '{name}'; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


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

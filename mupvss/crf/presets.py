"""The field's dense-CRF settings, under the names of the methods that use them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Strengths:
    """Standard deviations in pixels and grey levels, and Potts weights, of the two kernels."""

    gaussian_xy: float
    gaussian_weight: float
    bilateral_xy: float
    bilateral_rgb: float
    bilateral_weight: float


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
"""How sure a label is when the CRF starts from labels."""
EPSILON = 1e-5
"""Probabilities under it count as this much, so that every label can still win."""

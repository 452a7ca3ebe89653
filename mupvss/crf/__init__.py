"""Dense CRF (Krähenbühl & Koltun 2011): aligns masks with picture edges, on CPUs through numba or anywhere through torch."""

from mupvss.crf.dense_crf import MAX_PIXELS, DenseCRF, compile_ahead, dense_crf, probabilities_from_labels
from mupvss.crf.kernels import PRESETS, Strengths, preset

__all__ = [
    "MAX_PIXELS",
    "PRESETS",
    "DenseCRF",
    "Strengths",
    "compile_ahead",
    "dense_crf",
    "preset",
    "probabilities_from_labels",
]

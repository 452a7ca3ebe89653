"""Dense CRF (Krähenbühl & Koltun 2011): masks drawn to the picture's edges, on CPUs through numba or anywhere through torch."""

from mupvss.crf.dense_crf import DenseCRF, dense_crf, probabilities_from_labels
from mupvss.crf.kernels import PRESETS, Strengths

__all__ = ["PRESETS", "DenseCRF", "Strengths", "dense_crf", "probabilities_from_labels"]

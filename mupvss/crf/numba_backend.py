"""The mean field on a CPU, compiled by numba."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import numba
import numpy as np

from mupvss.crf.features import MeanField, bilateral_features, gaussian_features
from mupvss.crf.lattice import build_lattice
from mupvss.crf.mean_field import kernel, mean_field
from mupvss.crf.presets import Strengths


def prepare(image: np.ndarray, strengths: Strengths, threads: int) -> MeanField:
    """image (H, W, 3) uint8 -> its mean field."""
    threads = min(threads, numba.config.NUMBA_NUM_THREADS)
    with _numba_threads(threads):
        bilateral = kernel(build_lattice(bilateral_features(image, strengths)))
        gaussian = _gaussian_kernel(image.shape[0], image.shape[1], strengths.gaussian_xy)
    weights = [strengths.gaussian_weight, strengths.bilateral_weight]

    def run(logs: np.ndarray, steps: int) -> np.ndarray:
        with _numba_threads(threads):
            return mean_field(logs, [gaussian, bilateral], weights, steps, threads)

    return run


@contextlib.contextmanager
def _numba_threads(count: int) -> Iterator[None]:
    before = numba.get_num_threads()
    numba.set_num_threads(count)
    try:
        yield
    finally:
        numba.set_num_threads(before)


@functools.lru_cache(maxsize=4)
def _gaussian_kernel(height: int, width: int, deviation: float):  # type: ignore[no-untyped-def]
    """Positions alone say nothing of the picture, and most pictures of a data set have one of a few sizes."""
    return kernel(build_lattice(gaussian_features(height, width, deviation)))

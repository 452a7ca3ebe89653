"""Mean field over two lattices on the CPU: slicing, softmax and splatting in one pass over the pixels.

A pixel's probabilities are never stored: they are read from the blurred lattices of the last step and added to those of the next
at once. The symmetric normalisation is folded into the pixels' weights beforehand. The vertices of both lattices share one table,
in which a pixel reads and writes nine rows.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numba
import numpy as np
from numba import njit, prange

from mupvss.crf.kernels import MeanField, Strengths, bilateral_features, gaussian_features
from mupvss.crf.lattice import Lattice, build_lattice
from mupvss.crf.simd import ROWS, gather_rows, scatter_rows

FAST = {"cache": True, "nogil": True, "fastmath": True}
BLOCK = 16
"""Number of pixels whose exponentials are computed together."""
PAD = 4
"""The number of labels is padded to a multiple of this, so that rows are whole vectors and few lengths need compiling."""


@dataclass(frozen=True)
class Kernel:
    """A lattice with its normalisation, independent of the labels."""

    lattice: Lattice
    weights: np.ndarray
    """(n, d + 1) float32: barycentric weights times 1 / sqrt(K 1), for both splatting and slicing."""


def kernel(lattice: Lattice) -> Kernel:
    row = np.zeros((1, lattice.vertices + 1, PAD), np.float32)
    _splat_ones(lattice.offsets, lattice.weights, row[0])
    blurred = _filter(row, np.empty_like(row[0]), np.empty_like(row[0]), lattice, lattice.alpha)
    return Kernel(lattice, _divided(lattice.offsets, lattice.weights, blurred))


def mean_field(log_unary: np.ndarray, kernels: list[Kernel], strengths: list[float], steps: int, threads: int) -> np.ndarray:
    """log_unary (G, L, n) float32: log-probabilities; -> probabilities (G, L, n) float32 after `steps` steps.

    kernels: two, Gaussian and bilateral; strengths: their Potts weights. The G sets share every pass over the lattices, and
    each is normalised separately.
    """
    shape = log_unary.shape
    groups, n = shape[0], shape[2]
    log_unary = log_unary.reshape(-1, n)
    labels = len(log_unary)
    padded = -(-labels // PAD) * PAD
    unary = _by_pixel(log_unary, padded)
    bounds = np.cumsum([0, *(k.lattice.vertices + 1 for k in kernels)])
    offsets = np.concatenate([k.lattice.offsets + np.int32(b) for k, b in zip(kernels, bounds[:-1], strict=True)], 1)
    weights = np.concatenate([k.weights for k in kernels], 1)
    given = np.zeros((threads, bounds[-1], padded), np.float32)
    read, spare = np.zeros((bounds[-1], padded), np.float32), np.empty((bounds[-1], padded), np.float32)
    pixels = _pixels(padded, 1, padded) if groups == 1 else _pixels(padded, groups, shape[1])
    for _ in range(steps):
        pixels(unary, offsets, weights, read, given, unary, False, threads)
        for k, strength, low, high in zip(kernels, strengths, bounds[:-1], bounds[1:], strict=True):
            parts = given[:, low:high], read[low:high], spare[low:high]
            _filter(*parts, k.lattice, strength * k.lattice.alpha)
    out = np.empty((labels, n), np.float32)
    pixels(unary, offsets, weights, read, given, out, True, threads)
    return out.reshape(shape)


def _filter(given: np.ndarray, one: np.ndarray, other: np.ndarray, lattice: Lattice, strength: float) -> np.ndarray:
    """Sums the threads' tables and blurs the sum along every direction. The result is in `one`, and `given` is zeroed."""
    new, free = (one, other) if len(lattice.neighbours) % 2 else (other, one)
    _blur_first(given, new, lattice.neighbours[0], np.float32(strength))
    given[:] = 0
    for neighbours in lattice.neighbours[1:]:
        _blur(new, free, neighbours)
        new, free = free, new
    return new


@njit(parallel=True, **FAST)
def _by_pixel(log_unary, padded):  # type: ignore[no-untyped-def]
    """(L, n) -> (n, padded); the padding is so unlikely that it has no effect."""
    labels, n = log_unary.shape
    out = np.empty((n, padded), np.float32)
    for p in prange(n):
        for c in range(labels):
            out[p, c] = log_unary[c, p]
        for c in range(labels, padded):
            out[p, c] = -1e4
    return out


@njit(**FAST)
def _splat_ones(offsets, weights, table):  # type: ignore[no-untyped-def]
    for p in range(offsets.shape[0]):
        for k in range(offsets.shape[1]):
            table[offsets[p, k], 0] += weights[p, k]


@njit(parallel=True, **FAST)
def _divided(offsets, weights, blurred):  # type: ignore[no-untyped-def]
    out = np.empty_like(weights)
    for p in prange(offsets.shape[0]):
        total = np.float32(1e-20)
        for k in range(offsets.shape[1]):
            total += weights[p, k] * blurred[offsets[p, k], 0]
        factor = np.float32(1) / np.sqrt(total)
        for k in range(offsets.shape[1]):
            out[p, k] = weights[p, k] * factor
    return out


@njit(parallel=True, **FAST)
def _blur_first(given, new, neighbours, factor):  # type: ignore[no-untyped-def]
    """Sums over the threads, blurs along the first direction and multiplies by a factor."""
    threads, rows, labels = given.shape
    for v in prange(rows - 1):
        a, b = np.uint32(neighbours[v, 0]), np.uint32(neighbours[v, 1])
        for c in range(labels):
            new[v, c] = factor * (given[0, v, c] + np.float32(0.5) * (given[0, a, c] + given[0, b, c]))
        for t in range(1, threads):
            for c in range(labels):
                new[v, c] += factor * (given[t, v, c] + np.float32(0.5) * (given[t, a, c] + given[t, b, c]))
    new[rows - 1, :] = 0


@njit(parallel=True, **FAST)
def _blur(old, new, neighbours):  # type: ignore[no-untyped-def]
    """new = old + (one neighbour + the other) / 2; the last row stays zero and stands for a missing neighbour."""
    rows, labels = old.shape
    for v in prange(rows - 1):
        a, b = np.uint32(neighbours[v, 0]), np.uint32(neighbours[v, 1])
        for c in range(labels):
            new[v, c] = old[v, c] + np.float32(0.5) * (old[a, c] + old[b, c])
    new[rows - 1, :] = 0


@functools.cache
def _pixels(labels: int, groups: int, size: int) -> Callable[..., None]:
    """One pass: gather from the blurred table, softmax, and scatter into the thread's own table (or `out` at the last).

    One compiled function per number of labels, so that its loops become whole vectors. groups: number of softmaxes, each over
    `size` consecutive labels; the padding after them stays close to zero.
    """

    @njit(parallel=True, **FAST)
    def pixels(unary, offsets, weights, read, given, out, last, threads):  # type: ignore[no-untyped-def]
        n = unary.shape[0]
        flat_unary, flat_read = unary.ravel(), read.ravel()
        flat_offsets, flat_weights = offsets.ravel(), weights.ravel()
        for t in prange(threads):
            mine = given[t].ravel()
            q = np.empty((BLOCK, labels), np.float32)
            flat, scale = q.ravel(), np.empty(BLOCK * labels, np.float32)
            scale_bits = scale.view(np.int32)
            stop = n * (t + 1) // threads
            for start in range(n * t // threads, stop, BLOCK):
                count = min(BLOCK, stop - start)
                for i in range(count):
                    p = start + i
                    gather_rows(flat, i * labels, flat_unary, p * labels, flat_read, flat_offsets, flat_weights, p * ROWS, labels)
                    for g in range(groups):
                        top = q[i, g * size]
                        for c in range(g * size, (g + 1) * size):
                            top = max(top, q[i, c])
                        for c in range(g * size, (g + 1) * size):
                            q[i, c] -= top
                _exp(flat, scale, scale_bits, BLOCK * labels)
                for i in range(count):
                    share = np.float32(1)
                    for g in range(groups):
                        total = np.float32(0)
                        for c in range(g * size, (g + 1) * size):
                            total += q[i, c]
                        if groups == 1:
                            share = np.float32(1) / total
                        else:
                            for c in range(g * size, (g + 1) * size):
                                q[i, c] /= total
                    if last:
                        for c in range(out.shape[0]):
                            out[c, start + i] = q[i, c] * share
                    else:
                        scatter_rows(flat, i * labels, mine, flat_offsets, flat_weights, (start + i) * ROWS, share, labels)

    return pixels


@njit(inline="always", fastmath=True)
def _exp(x, scale, scale_bits, count):  # type: ignore[no-untyped-def]
    """x = exp(x) in place for x <= 0, as 2^whole * 2^rest in plain arithmetic that the compiler vectorises; error 2e-7."""
    for c in range(count):
        y = max(np.float32(-126), x[c] * np.float32(1.44269504))
        whole = np.floor(y)
        rest = y - whole
        scale_bits[c] = (np.int32(whole) + np.int32(127)) << np.int32(23)
        high = np.float32(0.00961833) + rest * (np.float32(0.00133335) + rest * np.float32(0.00015403))
        low = np.float32(0.240226463) + rest * (np.float32(0.0555032887) + rest * high)
        x[c] = np.float32(1) + rest * (np.float32(0.693147182) + rest * low)
    for c in range(count):
        x[c] *= scale[c]


def prepare(image: np.ndarray, strengths: Strengths, threads: int) -> MeanField:
    """image (H, W, 3) uint8 -> the function that computes its mean field."""
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
    """Cached, since positions do not depend on the picture's content and most pictures of a data set have one of a few sizes."""
    return kernel(build_lattice(gaussian_features(height, width, deviation)))

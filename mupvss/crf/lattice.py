"""Permutohedral lattice (Adams et al. 2010): Gaussian filtering in d dimensions in time linear in the number of pixels.

A pixel lies in a simplex of d + 1 lattice vertices and gives each of them its barycentric share; the vertices are blurred
along d + 1 directions; the pixel reads back from the same vertices. Conventions (scaling, rounding) are those of
Krähenbühl & Koltun (2011), so that results agree with theirs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit, prange

BLOCKS, LANES = 64, 16
"""Number of blocks that the threads share, and number of pixels that are processed together."""
CACHE = {"cache": True, "nogil": True}


@dataclass(frozen=True)
class Lattice:
    """The positions of n pixels among m vertices."""

    offsets: np.ndarray
    """(n, d + 1) int32: the vertices of each pixel's simplex."""
    weights: np.ndarray
    """(n, d + 1) float32: barycentric shares, which sum to 1."""
    neighbours: np.ndarray
    """(d + 1, m, 2) int32: the two adjacent vertices along each direction; m stands for none."""

    @property
    def vertices(self) -> int:
        return self.neighbours.shape[1]

    @property
    def alpha(self) -> float:
        """Factor that corrects the gain of the blur."""
        return 1 / (1 + 2.0 ** -(self.weights.shape[1] - 1))


def build_lattice(features: np.ndarray) -> Lattice:
    """features (n, d) float32, in units of the kernel's standard deviation, d = 2 or 5. ValueError if they spread too far."""
    d = features.shape[1]
    bits = 62 // d
    _check_range(features, 1 << (bits - 1))
    keys, weights = _simplices(d, bits)(np.ascontiguousarray(features, np.float32))
    offsets, vertex_keys = _number(keys)
    return Lattice(offsets, weights, _neighbours(vertex_keys, d, bits))


def _check_range(features: np.ndarray, limit: int) -> None:
    """Raises ValueError if lattice coordinates do not fit into one packed number per vertex."""
    d = features.shape[1]
    index = np.arange(1, d + 1)
    part = np.abs(features).max(0, initial=0) * np.sqrt(2 / 3) * (d + 1) / np.sqrt(index * (index + 1))
    reach = max(float(part.sum()), float((part * index).max())) + 3 * (d + 1)
    if reach >= limit:
        raise ValueError(f"the kernel is too narrow for this picture: lattice positions up to {reach:.0f}, at most {limit}")


@functools.cache
def _simplices(d: int, bits: int) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Features (n, d) -> packed keys (n, d + 1) int64 of each pixel's vertices, barycentric weights (n, d + 1).

    One function per d, whose loops the compiler unrolls.
    """

    @njit(parallel=True, **CACHE)
    def simplices(features):  # type: ignore[no-untyped-def]
        n = features.shape[0]
        keys = np.empty((n, d + 1), np.int64)
        weights = np.empty((n, d + 1), np.float32)
        bias = np.int64(1) << (bits - 1)
        scale = np.empty(d, np.float32)
        for i in range(d):
            scale[i] = np.sqrt(2.0 / 3.0) * (d + 1) / np.sqrt((i + 1.0) * (i + 2.0))
        for block in prange(BLOCKS):
            x, elevated = np.empty((d, LANES), np.float32), np.empty((d + 1, LANES), np.float32)
            nearest, rank = np.empty((d + 1, LANES), np.float32), np.empty((d + 1, LANES), np.float32)
            total, count = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
            share = np.empty((LANES, d + 2), np.float32)
            stop = n * (block + 1) // BLOCKS
            for start in range(n * block // BLOCKS, stop, LANES):
                lanes = min(LANES, stop - start)
                for q in range(lanes):
                    for i in range(d):
                        x[i, q] = features[start + q, i]
                _nearest_simplex(x, scale, elevated, nearest, rank, total, count, d)
                share[:] = 0
                for q in range(lanes):
                    for i in range(d + 1):
                        place = d - int(rank[i, q])
                        value = (elevated[i, q] - nearest[i, q]) * np.float32(1 / (d + 1))
                        share[q, place] += value
                        share[q, place + 1] -= value
                    share[q, 0] += 1 + share[q, d + 1]
                    base = np.int64(0)
                    for i in range(d):
                        base = (base << bits) + (np.int64(nearest[i, q]) + bias)
                    for k in range(d + 1):
                        key = base
                        for i in range(d):
                            step = k - (d + 1) * (rank[i, q] > d - k)
                            key += np.int64(step) << (bits * (d - 1 - i))
                        keys[start + q, k] = key
                        weights[start + q, k] = share[q, k]
        return keys, weights

    return simplices


@njit(inline="always")
def _nearest_simplex(x, scale, elevated, nearest, rank, total, count, d):  # type: ignore[no-untyped-def]
    """For LANES pixels at once: coordinates on the lattice's plane, the nearest vertex of colour 0, and the ranks of the
    residuals, which tell in which simplex a pixel lies."""
    for q in range(LANES):
        total[q], count[q] = 0, 0
    for j in range(d, 0, -1):
        for q in range(LANES):
            part = x[j - 1, q] * scale[j - 1]
            elevated[j, q] = total[q] - np.float32(j) * part
            total[q] += part
    for q in range(LANES):
        elevated[0, q] = total[q]
    for i in range(d + 1):
        for q in range(LANES):
            place = elevated[i, q] * np.float32(1 / (d + 1))
            cell = np.ceil(place - np.float32(0.5))  # the lower of two equally near
            nearest[i, q] = cell * np.float32(d + 1)
            count[q] += cell
            rank[i, q] = 0
    for i in range(d):
        for j in range(i + 1, d + 1):
            for q in range(LANES):
                less = np.float32(elevated[i, q] - nearest[i, q] < elevated[j, q] - nearest[j, q])
                rank[i, q] += less
                rank[j, q] += np.float32(1) - less
    for i in range(d + 1):  # back onto the plane where coordinates sum to zero
        for q in range(LANES):
            moved = rank[i, q] + count[q]
            turn = np.float32(d + 1) * (np.float32(moved < 0) - np.float32(moved > d))
            rank[i, q] = moved + turn
            nearest[i, q] += turn


@njit(**CACHE)
def _number(keys):  # type: ignore[no-untyped-def]
    """Packed keys (n, d + 1) -> vertex numbers in order of appearance (n, d + 1) int32, and each vertex's key (m,)."""
    n, k = keys.shape
    size = np.int64(1) << 14
    table = np.full(size, -1, np.int32)
    found = np.empty(1 << 13, np.int64)
    offsets = np.empty((n, k), np.int32)
    m = 0
    for p in range(n):
        for i in range(k):
            key = keys[p, i]
            if p > 0 and key == keys[p - 1, i]:  # neighbouring pixels mostly share their simplex
                offsets[p, i] = offsets[p - 1, i]
                continue
            slot = _slot(table, found, key, size)
            if table[slot] < 0:
                if 2 * m >= size:
                    size *= 4
                    table = np.full(size, -1, np.int32)
                    for old in range(m):
                        table[_slot(table, found, found[old], size)] = old
                    slot = _slot(table, found, key, size)
                if m == len(found):
                    larger = np.empty(4 * m, np.int64)
                    larger[:m] = found
                    found = larger
                found[m] = key
                table[slot] = m
                m += 1
            offsets[p, i] = table[slot]
    return offsets, found[:m].copy()


@njit(inline="always")
def _slot(table, found, key, size):  # type: ignore[no-untyped-def]
    """The key's slot in the hash table, or the free slot where it belongs."""
    mixed = key * np.int64(-7046029254386353131)
    slot = (mixed ^ (mixed >> 29)) & (size - 1)
    while table[slot] >= 0 and found[table[slot]] != key:
        slot = (slot + 1) & (size - 1)
    return slot


@njit(parallel=True, **CACHE)
def _neighbours(vertex_keys, d, bits):  # type: ignore[no-untyped-def]
    m = len(vertex_keys)
    size = np.int64(1) << 4
    while size < 2 * m:
        size *= 2
    table = np.full(size, -1, np.int32)
    for i in range(m):
        table[_slot(table, vertex_keys, vertex_keys[i], size)] = i
    ones = np.int64(0)
    for _ in range(d):
        ones = (ones << bits) | 1
    neighbours = np.empty((d + 1, m, 2), np.int32)
    for j in prange(d + 1):
        step = -ones
        if j < d:
            step += np.int64(d + 1) << (bits * (d - 1 - j))
        for i in range(m):
            for side in range(2):
                key = vertex_keys[i] + step if side == 0 else vertex_keys[i] - step
                hit = table[_slot(table, vertex_keys, key, size)]
                neighbours[j, i, side] = hit if hit >= 0 else m
    return neighbours

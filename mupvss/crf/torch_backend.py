"""The same mean field in torch, for GPUs and for CPUs without numba; it sorts where numba's version hashes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mupvss.crf.kernels import MeanField, Strengths, bilateral_features, gaussian_features


@dataclass(frozen=True)
class TorchKernel:
    offsets: Tensor
    """(n, d + 1) int64."""
    weights: Tensor
    """(n, d + 1): barycentric, times 1 / sqrt(K 1) once normalised."""
    neighbours: Tensor
    """(d + 1, m, 2) int64; m for none."""

    @property
    def alpha(self) -> float:
        return 1 / (1 + 2.0 ** -(self.weights.shape[1] - 1))


def prepare(image: np.ndarray, strengths: Strengths, device: str) -> MeanField:
    """image (H, W, 3) uint8 -> the function that computes its mean field."""
    place = torch.from_numpy(gaussian_features(image.shape[0], image.shape[1], strengths.gaussian_xy)).to(device)
    both = torch.from_numpy(bilateral_features(image, strengths)).to(device)
    kernels = [_normalised(_build(f)) for f in (place, both)]
    weights = (strengths.gaussian_weight, strengths.bilateral_weight)

    def run(logs: np.ndarray, steps: int) -> np.ndarray:
        unary = torch.from_numpy(logs).to(device).permute(2, 0, 1).contiguous()  # (n, G, L)
        q = unary.softmax(2)
        for _ in range(steps):
            logits = unary
            for kernel, weight in zip(kernels, weights, strict=True):
                logits = logits + weight * _filter(kernel, q.flatten(1)).view_as(q)
            q = logits.softmax(2)
        return q.permute(1, 2, 0).contiguous().cpu().numpy()

    return run


def _normalised(kernel: TorchKernel) -> TorchKernel:
    ones = torch.ones(len(kernel.offsets), 1, device=kernel.weights.device)
    factor = (_filter(kernel, ones) + 1e-20).rsqrt()
    return TorchKernel(kernel.offsets, kernel.weights * factor, kernel.neighbours)


def _filter(kernel: TorchKernel, values: Tensor) -> Tensor:
    """values (n, L) -> splat, blur, slice: (n, L)."""
    m, labels = kernel.neighbours.shape[1], values.shape[1]
    table = values.new_zeros(m + 1, labels)
    for k in range(kernel.offsets.shape[1]):
        table.index_add_(0, kernel.offsets[:, k], values * kernel.weights[:, k, None])
    for pair in kernel.neighbours:
        table[:m] = table[:m] + (table[pair[:, 0]] + table[pair[:, 1]]) / 2
    found = torch.zeros_like(values)
    for k in range(kernel.offsets.shape[1]):
        found += kernel.weights[:, k, None] * table[kernel.offsets[:, k]]
    return kernel.alpha * found


def _build(features: Tensor) -> TorchKernel:
    """features (n, d) float32 -> lattice; the conventions are those of lattice.py."""
    d = features.shape[1]
    index = torch.arange(d, device=features.device, dtype=torch.float32)
    scaled = features * ((2 / 3) ** 0.5 * (d + 1) / ((index + 1) * (index + 2)).sqrt())
    after = scaled.flip(1).cumsum(1).flip(1)  # sums of the coordinates from i on
    zero = torch.zeros_like(after[:, :1])
    elevated = torch.cat((after, zero), 1) - torch.cat((zero, scaled * (index + 1)), 1)
    cell = (elevated / (d + 1) - 0.5).ceil()
    nearest, rest = cell * (d + 1), elevated - cell * (d + 1)
    smaller = (rest.unsqueeze(2) < rest.unsqueeze(1)).sum(2)
    earlier = torch.ones(d + 1, d + 1, dtype=torch.bool, device=features.device).tril(-1)
    ties = ((rest.unsqueeze(2) == rest.unsqueeze(1)) & earlier).sum(2)
    rank = smaller + ties + cell.sum(1, keepdim=True).long()
    turn = (d + 1) * ((rank < 0).long() - (rank > d).long())
    rank, nearest = rank + turn, nearest + turn
    value = (elevated - nearest) / (d + 1)
    share = torch.zeros(len(features), d + 2, device=features.device)
    share.scatter_add_(1, d - rank, value).scatter_add_(1, d + 1 - rank, -value)
    share[:, 0] += 1 + share[:, d + 1]
    colours = torch.arange(d + 1, device=features.device)
    steps = colours.view(1, -1, 1) - (d + 1) * (rank[:, None, :d] > d - colours.view(1, -1, 1)).long()  # (n, d + 1, d)
    keys = _pack(nearest[:, None, :d].long() + steps, d)
    vertices, offsets = torch.unique(keys, return_inverse=True)
    return TorchKernel(offsets, share[:, : d + 1], _neighbours(vertices, d))


def _pack(coordinates: Tensor, d: int) -> Tensor:
    """(..., d) whole numbers -> one int64 each."""
    bits = 62 // d
    limit = 1 << (bits - 1)
    if int(coordinates.abs().max()) >= limit - d - 2:
        raise ValueError(f"the kernel is too narrow for this picture: lattice positions do not fit under {limit}")
    packed = torch.zeros_like(coordinates[..., 0])
    for i in range(d):
        packed = (packed << bits) + coordinates[..., i] + limit
    return packed


def _neighbours(vertices: Tensor, d: int) -> Tensor:
    """Sorted packed keys (m,) -> (d + 1, m, 2)."""
    bits, m = 62 // d, len(vertices)
    ones = sum(1 << (bits * i) for i in range(d))
    found = []
    for j in range(d + 1):
        step = ((d + 1) << (bits * (d - 1 - j)) if j < d else 0) - ones
        sides = []
        for key in (vertices + step, vertices - step):
            place = torch.searchsorted(vertices, key).clamp_max(m - 1)
            sides.append(torch.where(vertices[place] == key, place, m))
        found.append(torch.stack(sides, 1))
    return torch.stack(found)

"""Learned affinity (Ahn & Kwak 2018, PSA): pairs of cells, the loss that teaches them, and the random walk over them.

Squaring the usual dense transition matrix log2(steps) times costs N^3. Applying a sparse one `steps` times costs N times the
number of neighbours, and never holds an N x N matrix.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mupvss.data.masks import IGNORE
from mupvss.data.preprocess import normalise, reduced, reduction, resize_for_search
from mupvss.masks.affinity_networks import AffinityNetwork
from mupvss.runtime.device import autocast
from mupvss.search.multiscale import stretch
from mupvss.search.seeds import Seeds

RADIUS = 5
"""Cells up to this far apart are pairs, as published."""
BETA = 8.0
"""Power of the affinities before a walk."""
STEPS = 32
"""Number of steps of a walk."""


def half_disc(radius: int) -> list[tuple[int, int]]:
    """Displacements (dy, dx) of length under `radius`, one of each opposite pair: 34 for radius 5."""
    flat = [(0, dx) for dx in range(1, radius)]
    below = [(dy, dx) for dy in range(1, radius) for dx in range(1 - radius, radius) if dy * dy + dx * dx < radius * radius]
    return flat + below


def _displacements(height: int, width: int, radius: int) -> list[tuple[int, int]]:
    """Those of `half_disc` that fit into a grid."""
    return [(dy, dx) for dy, dx in half_disc(radius) if dy < height and abs(dx) < width]


@functools.lru_cache(maxsize=8)
def pair_index(height: int, width: int, radius: int) -> tuple[Tensor, Tensor]:
    """Every pair of cells of a grid within the radius, once: (first, second), flat indices int64 of equal length."""
    index = torch.arange(height * width).view(height, width)
    first, second = [], []
    for dy, dx in _displacements(height, width, radius):
        left, right = max(0, -dx), width - max(0, dx)
        first.append(index[: height - dy, left:right].flatten())
        second.append(index[dy:, left + dx : right + dx].flatten())
    empty = torch.zeros(0, dtype=torch.long)
    return torch.cat([empty, *first]), torch.cat([empty, *second])


def pair_targets(labels: Tensor, radius: int) -> tuple[Tensor, Tensor, Tensor]:
    """labels (B, h, w), class ids with 0 background and 255 unsure -> (B, pairs) bool each: both background, both one object
    class, of different classes. A pair with an unsure cell is in none."""
    first, second = pair_index(labels.shape[1], labels.shape[2], radius)
    flat = labels.flatten(1)
    a, b = flat[:, first.to(flat.device)], flat[:, second.to(flat.device)]
    sure = (a != IGNORE) & (b != IGNORE)
    same = sure & (a == b)
    return same & (a == 0), same & (a > 0), sure & (a != b)


def pair_affinity(features: Tensor, radius: int) -> Tensor:
    """features (B, D, h, w) -> exp(-mean |difference|) in (0, 1] for every pair within the radius (B, pairs).

    The pairs are in the order of `pair_index`. Shifted views take a sixth of the time of indices, whose gradient is a scatter.
    """
    features = features.float()
    height, width = features.shape[2:]
    far = [features.new_zeros(len(features), 0)]
    for dy, dx in _displacements(height, width, radius):
        left, right = max(0, -dx), width - max(0, dx)
        one, other = features[:, :, : height - dy, left:right], features[:, :, dy:, left + dx : right + dx]
        far.append((one - other).abs().mean(1).flatten(1))
    return torch.exp(-torch.cat(far, 1))


def affinity_loss(
    affinity: Tensor, labels: Tensor, radius: int, mean_count: Callable[[Tensor], Tensor] = lambda count: count
) -> Tensor:
    """affinity (B, pairs), labels (B, h, w) -> scalar: background/4 + object/4 + different/2, each the mean over its pairs.

    A kind of pair that does not occur adds nothing; with none at all the loss is 0, with a gradient of zero.
    mean_count: averages a count over the processes that share a batch.
    """
    background, thing, different = pair_targets(labels, radius)
    near, far = -torch.log(affinity + 1e-5), -torch.log(1 - affinity + 1e-5)
    parts = ((background, near, 0.25), (thing, near, 0.25), (different, far, 0.5))
    terms = [weight * (loss * chosen).sum() / (mean_count(chosen.sum()) + 1e-5) for chosen, loss, weight in parts]
    return torch.stack(terms).sum()


def transition(affinity: Tensor, height: int, width: int, radius: int, beta: float) -> Tensor:
    """affinity (pairs,) in [0, 1] of one picture -> row-normalised affinity^beta, sparse CSR (N, N), N = height * width.

    Every cell is its own neighbour at affinity 1.
    """
    first, second = (side.to(affinity.device) for side in pair_index(height, width, radius))
    own = torch.arange(height * width, device=affinity.device)
    strength = affinity.float() ** beta
    rows = torch.cat((own, first, second))
    columns = torch.cat((own, second, first))
    values = torch.cat((torch.ones(len(own), device=affinity.device), strength, strength))
    total = torch.zeros(len(own), device=affinity.device).index_add_(0, rows, values)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")  # notices that sparse products are in beta; our tests check them
        matrix = torch.sparse_coo_tensor(
            torch.stack((rows, columns)), values / total[rows], (len(own),) * 2, check_invariants=False
        )
        return matrix.coalesce().to_sparse_csr()


def random_walk(maps: Tensor, operator: Tensor, steps: int) -> Tensor:
    """maps (C, h, w), operator (h*w, h*w) sparse, rows summing to 1 -> (C, h, w), each cell the average over its walk."""
    flat = maps.flatten(1).t().contiguous().float()  # (N, C)
    if flat.shape[1] == 1:  # the product with a vector is slower than with a narrow matrix
        flat = flat.expand(-1, 2).contiguous()
    for _ in range(steps):
        flat = operator @ flat
    return flat.t()[: len(maps)].reshape(maps.shape)


@torch.no_grad()
def walked(seeds: Seeds, image: Image.Image, network: AffinityNetwork, multiple: int, device: torch.device) -> Seeds:
    """The seeds with their maps averaged over random walks and stretched to [0, 1] again.

    multiple: sides of the picture are rounded to multiples of this, in pixels.
    """
    if len(seeds.ids) == 0:
        return seeds
    small = reduced(image, reduction(image.size))
    tensor = normalise(resize_for_search(small, 1.0, multiple)).unsqueeze(0).to(device)
    with autocast(device, "bf16" if device.type == "cuda" else "fp32"):
        features = network(tensor)
    grid = (features.shape[2], features.shape[3])
    walking = device if device.type == "cuda" else torch.device("cpu")  # Apple's GPU has no sparse matrices
    operator = transition(pair_affinity(features, RADIUS)[0].to(walking), *grid, RADIUS, BETA)
    maps = torch.from_numpy(seeds.maps.astype(np.float32)).to(walking)
    coarse = F.interpolate(maps.unsqueeze(0), size=grid, mode="bilinear", align_corners=False)[0]
    spread = random_walk(coarse, operator, STEPS)
    back = F.interpolate(spread.unsqueeze(0), size=maps.shape[1:], mode="bilinear", align_corners=False)[0]
    return Seeds(seeds.ids, stretch(back).cpu().numpy(), seeds.size, seeds.stride)

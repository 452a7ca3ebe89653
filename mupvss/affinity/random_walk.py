"""The random walk: maps spread along affinity, as a sparse operator applied step by step.

The usual dense transition matrix squared log2(steps) times costs N^3; a sparse one applied `steps` times costs N times the
neighbours, and never holds an N x N matrix.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from mupvss.affinity.pairs import pair_index


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
        warnings.filterwarnings("ignore", message="Sparse")  # beta-state notices of a product that our tests check
        matrix = torch.sparse_coo_tensor(
            torch.stack((rows, columns)), values / total[rows], (len(own),) * 2, check_invariants=False
        )
        return matrix.coalesce().to_sparse_csr()


def random_walk(maps: Tensor, operator: Tensor, steps: int) -> Tensor:
    """maps (C, h, w), operator (h*w, h*w) sparse, rows summing to 1 -> (C, h, w), each cell the average over its walk."""
    flat = maps.flatten(1).t().contiguous().float()  # (N, C)
    if flat.shape[1] == 1:  # a matrix with a vector is a slower path than with a narrow matrix
        flat = flat.expand(-1, 2).contiguous()
    for _ in range(steps):
        flat = operator @ flat
    return flat.t()[: len(maps)].reshape(maps.shape)

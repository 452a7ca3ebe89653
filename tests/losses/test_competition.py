"""The competition of the prototypes against sums in loops, and what it asks."""

from __future__ import annotations

import math

import pytest
import torch

from mupvss.losses import competition
from mupvss.ops import COMPETITION, rival_logits


def test_against_loops():
    generator = torch.Generator().manual_seed(0)
    patches, prototypes = torch.randn(2, 5, 8, generator=generator), torch.randn(2, 4, 8, generator=generator)
    tags = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 1]])
    total = 0.0
    for b in range(2):
        unit = [p / p.norm() for p in prototypes[b]]
        mean = (unit[0] + unit[1] + unit[2] + unit[3]) / 4
        apart = [(u - mean) / (u - mean).norm() for u in unit]
        for patch in patches[b]:
            weights = [math.exp(COMPETITION * float(a @ patch / patch.norm())) for a in apart]
            total -= math.log(sum(w for w, t in zip(weights, tags[b], strict=True) if t) / sum(weights))
    assert competition(patches, prototypes, tags).item() == pytest.approx(total / 10, rel=1e-4)


def test_pictures_without_a_tag_or_with_all_add_nothing():
    patches, prototypes = torch.randn(2, 5, 8), torch.randn(2, 3, 8, requires_grad=True)
    found = competition(patches, prototypes, torch.tensor([[0, 0, 0], [1, 1, 1]]))
    found.backward()
    assert found.item() == 0
    assert torch.isfinite(prototypes.grad).all()


def test_equal_prototypes_come_apart():
    patches, prototypes = torch.randn(2, 5, 8), torch.ones(2, 3, 8, requires_grad=True)
    competition(patches, prototypes, torch.tensor([[1, 0, 0], [0, 1, 0]])).backward()
    assert torch.isfinite(prototypes.grad).all()
    assert prototypes.grad.abs().max() > 0


def test_descending_gives_patches_to_the_tags():
    """Whichever of the tags takes a patch, none goes to the others."""
    torch.manual_seed(0)
    patches = torch.randn(3, 6, 8, requires_grad=True)
    prototypes, tags = torch.randn(3, 4, 8), torch.tensor([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]])
    optimizer = torch.optim.SGD([patches], lr=1.0)
    for _ in range(200):
        optimizer.zero_grad()
        competition(patches, prototypes, tags).backward()
        optimizer.step()
    winner = rival_logits(patches, prototypes, prototypes).argmax(1)
    assert tags.gather(1, winner).all()

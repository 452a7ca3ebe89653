"""The rivals' losses: MCTformer+'s class-token contrast and ReCAM's re-activation, against loops."""

from __future__ import annotations

import math

import pytest
import torch

from mupvss.losses.reactivation_loss import reactivation
from mupvss.losses.token_contrast_loss import token_contrast


def test_token_contrast_in_loops():
    tokens = torch.randn(2, 3, 4, 5)
    terms = []
    for picture in tokens.reshape(6, 4, 5):
        for i in range(4):
            cosines = [torch.cosine_similarity(picture[i], picture[j], dim=0).item() for j in range(4)]
            terms.append(-cosines[i] + math.log(sum(math.exp(c) for c in cosines)))
    assert token_contrast(tokens).item() == pytest.approx(sum(terms) / len(terms), abs=1e-5)


def test_token_contrast_floor_and_ceiling():
    spread = torch.eye(4) - 0.25  # four vectors as far apart as they can be
    assert token_contrast(spread.expand(1, 1, 4, 4)).item() == pytest.approx(math.log(1 + 3 * math.exp(-4 / 3)), abs=1e-5)
    assert token_contrast(torch.ones(1, 2, 4, 6)).item() == pytest.approx(math.log(4), abs=1e-5)


def test_reactivation_in_loops():
    patches, logits, weight = torch.rand(2, 5, 6), torch.randn(2, 3, 5), torch.randn(3, 6)
    tags = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    terms = []
    for b, c in ((0, 0), (0, 2), (1, 1)):
        cam = logits[b, c].relu()
        cam = cam / max(cam.max().item(), 1e-5)
        pooled = sum(cam[n] * patches[b, n] for n in range(5)) / 5
        terms.append(-(weight @ pooled).log_softmax(0)[c].item())
    assert reactivation(patches, logits, tags, weight).item() == pytest.approx(sum(terms) / 3, abs=1e-5)


def test_reactivation_does_not_teach_the_map_itself():
    # Above zero: of a map that is negative throughout nothing is left to learn from.
    patches, logits = torch.rand(1, 5, 6, requires_grad=True), torch.rand(1, 3, 5, requires_grad=True)
    weight = torch.randn(3, 6, requires_grad=True)
    reactivation(patches, logits, torch.tensor([[1.0, 0.0, 0.0]]), weight).backward()
    assert logits.grad is None
    assert patches.grad.abs().sum() > 0
    assert weight.grad.abs().sum() > 0


def test_reactivation_without_a_tag_is_zero_with_a_gradient():
    patches, weight = torch.rand(1, 5, 6, requires_grad=True), torch.randn(3, 6, requires_grad=True)
    loss = reactivation(patches, torch.randn(1, 3, 5), torch.zeros(1, 3), weight)
    loss.backward()
    assert loss.item() == 0
    assert patches.grad is not None

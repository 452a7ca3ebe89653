"""Each loss against the printed formula in slow loops, in float64, and its invariances."""

from __future__ import annotations

import math

import pytest
import torch

from mupvss.losses import ccp, cip, classification, p2p

B, C, N, D = 4, 5, 9, 16


def cosine(a, b):
    return (a @ b / (a.norm() * b.norm())).item()


@pytest.fixture
def prototypes():
    # A shared offset keeps the cosines positive, where the printed CIP has a value.
    return torch.randn(B, C, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 2.0


@pytest.fixture
def patches():
    return torch.randn(B, N, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def tags():
    return torch.tensor([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 1, 0, 1, 0]], dtype=torch.float64)


def test_ccp_is_the_printed_sum(prototypes):
    total = 0.0
    for b in range(B):
        for i in range(C):
            for j in range(C):
                if i != j:
                    total -= math.log(1 - cosine(prototypes[b, i], prototypes[b, j]))
    assert ccp(prototypes, "sum").item() == pytest.approx(total / B, abs=1e-10)
    assert ccp(prototypes).item() == pytest.approx(total / B / (C * (C - 1)), abs=1e-10)


@pytest.mark.parametrize("form", ["literal", "shifted"])
def test_cip_is_the_printed_sum(prototypes, form):
    total, pairs = 0.0, 0
    for c in range(C):
        for i in range(B):
            for j in range(B):
                if i == j:
                    continue
                cos = cosine(prototypes[i, c], prototypes[j, c])
                term = -math.log(cos if form == "literal" else (1 + cos) / 2)
                total, pairs = total + term, pairs + 1
    assert cip(prototypes, form=form, reduction="sum").item() == pytest.approx(total, abs=1e-9)
    assert cip(prototypes, form=form).item() == pytest.approx(total / pairs, abs=1e-10)


def test_p2p_is_the_printed_sum(patches, prototypes, tags):
    threshold, total = 0.05, 0.0
    for b in range(B):
        for c in range(C):
            score = 0.0
            for n in range(N):
                s = cosine(patches[b, n], prototypes[b, c])
                score += s if s > threshold else 0.0
            signed = score if tags[b, c] else -score
            total += math.log(1 + math.exp(-signed))
    assert p2p(patches, prototypes, tags, threshold=threshold, how="sum").item() == pytest.approx(total / (B * C), abs=1e-10)


def test_p2p_pools_by_attention(patches, prototypes, tags):
    attention = torch.rand(len(patches), prototypes.shape[1], patches.shape[1], dtype=patches.dtype)
    total = 0.0
    for b in range(B):
        for c in range(C):
            weights = attention[b, c] / attention[b, c].sum()
            pooled = sum(float(weights[n] * torch.cosine_similarity(patches[b, n], prototypes[b, c], dim=0)) for n in range(N))
            total += math.log(1 + math.exp(-pooled if tags[b, c] else pooled))
    found = p2p(patches, prototypes, tags, how="attention", attention=attention)
    assert found.item() == pytest.approx(total / (B * C), abs=1e-9)
    with pytest.raises(ValueError, match="needs the attention"):
        p2p(patches, prototypes, tags, how="attention")


def test_p2p_pools_by_rank(patches, prototypes, tags):
    decay = 0.7
    total = 0.0
    for b in range(B):
        for c in range(C):
            ranked = sorted((cosine(patches[b, n], prototypes[b, c]) for n in range(N)), reverse=True)
            weights = [decay**k for k in range(N)]
            score = 4.0 * sum(w * s for w, s in zip(weights, ranked, strict=True)) / sum(weights) - 1.0
            total += math.log(1 + math.exp(-score if tags[b, c] else score))
    found = p2p(patches, prototypes, tags, scale=4.0, bias=-1.0, decay=decay, reference_patches=0)
    assert found.item() == pytest.approx(total / (B * C), abs=1e-10)


def test_classification_is_the_soft_margin(tags):
    scores = torch.randn(B, C, dtype=torch.float64)
    total = sum(
        math.log(1 + math.exp(-s if t else s)) for s, t in zip(scores.flatten().tolist(), tags.flatten().tolist(), strict=True)
    )
    assert classification(scores, tags).item() == pytest.approx(total / (B * C), abs=1e-12)


def test_order_of_pictures_classes_and_patches_does_not_matter(patches, prototypes, tags):
    pictures, classes, places = torch.randperm(B), torch.randperm(C), torch.randperm(N)
    shuffled = prototypes[pictures][:, classes]
    moved_tags, moved = tags[pictures][:, classes], patches[pictures][:, places]
    torch.testing.assert_close(ccp(shuffled), ccp(prototypes))
    torch.testing.assert_close(cip(shuffled), cip(prototypes))
    torch.testing.assert_close(p2p(moved, shuffled, moved_tags), p2p(patches, prototypes, tags))


def test_length_of_a_token_does_not_matter(patches, prototypes, tags):
    factor = torch.rand(B, C, 1, dtype=torch.float64) * 9 + 0.1
    torch.testing.assert_close(ccp(prototypes * factor), ccp(prototypes))
    torch.testing.assert_close(cip(prototypes * factor), cip(prototypes))
    torch.testing.assert_close(p2p(patches, prototypes * factor, tags), p2p(patches, prototypes, tags))


def test_gwrp_pool_does_not_change_with_the_number_of_patches(patches, prototypes, tags):
    doubled = patches.repeat_interleave(4, dim=1)
    few = p2p(patches, prototypes, tags, decay=0.995, reference_patches=784)
    many = p2p(doubled, prototypes, tags, decay=0.995, reference_patches=784)
    assert many.item() == pytest.approx(few.item(), abs=0.02)


def test_ccp_floor():
    simplex = torch.eye(C, dtype=torch.float64) - 1 / C  # the most opposed C directions there are
    assert ccp(simplex).item() == pytest.approx(-math.log(C / (C - 1)), abs=1e-9)

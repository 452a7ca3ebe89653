"""Affinity: pairs, loss and random walk against slow loops; both networks; what a walk does to a map."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import network_of
from PIL import Image

from mupvss.masks.affinity_networks import AffinityNet, ViTAffinity
from mupvss.masks.random_walk import (
    affinity_loss,
    half_disc,
    pair_affinity,
    pair_index,
    pair_targets,
    random_walk,
    transition,
    walked,
)
from mupvss.model.cnn import ResNet38
from mupvss.search.seeds import Seeds


def test_pairs_in_loops():
    assert len(half_disc(5)) == 34
    first, second = pair_index(4, 6, 3)
    found = {frozenset(pair) for pair in zip(first.tolist(), second.tolist(), strict=True)}
    assert len(found) == len(first)  # each once
    expected = set()
    for a in range(24):
        for b in range(a + 1, 24):
            dy, dx = b // 6 - a // 6, b % 6 - a % 6
            if dy * dy + dx * dx < 9 and abs(dx) < 3 and abs(dy) < 3:
                expected.add(frozenset((a, b)))
    assert found == expected
    assert len(pair_index(1, 1, 5)[0]) == 0


@pytest.mark.parametrize(("height", "width"), [(9, 7), (3, 11), (1, 6), (2, 1), (1, 1)])
def test_affinity_of_pairs_by_index(height, width):
    """The pairs are in the order of `pair_index`, also on grids smaller than the radius."""
    features = torch.randn(2, 5, height, width, generator=torch.Generator().manual_seed(3))
    first, second = pair_index(height, width, 5)
    flat = features.flatten(2)
    expected = torch.exp(-(flat[:, :, first] - flat[:, :, second]).abs().mean(1))
    torch.testing.assert_close(pair_affinity(features, 5), expected)


def test_targets_by_hand():
    labels = torch.tensor([[[0, 0, 3], [3, 3, 255]]])
    first, second = pair_index(2, 3, 2)
    background, thing, different = pair_targets(labels, 2)
    kinds = {}
    for i, pair in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        kinds[pair] = (bool(background[0, i]), bool(thing[0, i]), bool(different[0, i]))
    assert kinds[0, 1] == (True, False, False)
    assert kinds[3, 4] == (False, True, False)
    assert kinds[0, 3] == (False, False, True)
    assert kinds[2, 5] == (False, False, False)  # unsure


def test_loss_in_loops():
    affinity, labels = torch.rand(2, len(pair_index(3, 4, 3)[0])), torch.randint(0, 3, (2, 3, 4))
    labels[0, 0, 0] = 255
    background, thing, different = pair_targets(labels, 3)
    sums, counts = [0.0, 0.0, 0.0], [0, 0, 0]
    for b in range(2):
        for i in range(affinity.shape[1]):
            a = affinity[b, i].item()
            for k, chosen in enumerate((background, thing, different)):
                if chosen[b, i]:
                    sums[k] += -math.log(a + 1e-5) if k < 2 else -math.log(1 - a + 1e-5)
                    counts[k] += 1
    expected = sum(w * s / max(c, 1) for w, s, c in zip((0.25, 0.25, 0.5), sums, counts, strict=True))
    assert affinity_loss(affinity, labels, 3).item() == pytest.approx(expected, abs=1e-4)


def test_all_unsure_teaches_nothing_and_is_finite():
    features = torch.randn(1, 5, 4, 4, requires_grad=True)
    loss = affinity_loss(pair_affinity(features, 3), torch.full((1, 4, 4), 255), 3)
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(features.grad).all()


def test_walk_equals_dense_squarings():
    torch.manual_seed(0)
    affinity = torch.rand(len(pair_index(9, 11, 5)[0]))
    operator = transition(affinity, 9, 11, 5, 8.0)
    dense = operator.to_dense()
    torch.testing.assert_close(dense.sum(1), torch.ones(99))
    for _ in range(6):
        dense = dense @ dense
    maps = torch.rand(3, 9, 11)
    found = random_walk(maps, operator, 64)
    torch.testing.assert_close(found.flatten(1), maps.flatten(1) @ dense.t(), atol=1e-5, rtol=0)
    torch.testing.assert_close(random_walk(maps[:1], operator, 64), found[:1])


def test_walk_on_one_cell():
    operator = transition(torch.zeros(0), 1, 1, 5, 8.0)
    assert random_walk(torch.full((2, 1, 1), 0.7), operator, 3).tolist() == [[[pytest.approx(0.7)]]] * 2


def test_affinitynet_reads_three_depths():
    network = AffinityNet(ResNet38(1 / 32))
    features = network(torch.randn(2, 3, 64, 80))
    assert features.shape[0] == 2
    assert features.shape[2:] == (8, 10)
    pair_affinity(features, 5).sum().backward()
    missing = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is None}
    assert missing <= {"backbone"}
    assert network.f8_3.weight.grad.abs().sum() > 0
    assert {n.split(".")[1] for n, p in network.named_parameters() if p.grad is None} <= set()


@pytest.mark.parametrize("method", ["mupvss", "mctformer", "vit-cam"])
def test_head_leaves_the_classifier_alone(method):
    classifier = network_of(method)
    network = ViTAffinity(classifier).train()
    assert not classifier.training
    images = torch.randn(2, 3, 32, 48)
    features = network(images)
    assert features.shape == (2, 128, 8, 12)  # two cells per patch's side
    pair_affinity(features, 5).sum().backward()
    assert all(p.grad is None for p in classifier.parameters())
    assert all(p.grad is not None for n, p in network.named_parameters() if not n.startswith("classifier."))
    torch.testing.assert_close(network.eval()(images), network(images))  # nothing is left over from a call


class Colours(torch.nn.Module):
    """In an affinity network's place: neighbours belong together if they have one colour."""

    def forward(self, images):
        return 20 * torch.nn.functional.avg_pool2d(images, 4)


def test_a_walk_fills_an_object():
    """A spot spreads over its own half, and stays there."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, 32:] = 255
    maps = np.zeros((1, 16, 16), np.float32)
    maps[0, 8, 4] = 1
    seeds = Seeds(np.array([2], np.int16), maps, (64, 64), 4)
    found = walked(seeds, Image.fromarray(pixels), Colours(), 8, torch.device("cpu"))
    assert found.ids.tolist() == [2]
    assert found.maps.shape == maps.shape
    assert found.maps[0, 4:12, :8].min() > 100 * found.maps[0, :, 8:].max()
    nothing = Seeds(np.zeros(0, np.int16), np.zeros((0, 16, 16), np.float32), (64, 64), 4)
    assert walked(nothing, Image.fromarray(pixels), Colours(), 8, torch.device("cpu")) is nothing

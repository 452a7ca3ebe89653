"""Pseudo masks, dense batches and the segmentation networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from mupvss.masks.pseudo import pseudo_mask, refine_mask
from mupvss.options import DeepLabSegment, MasksConfig, ViTSegment
from mupvss.predict.segmenter import SegmentationPredictor
from mupvss.search.seeds import Seeds
from mupvss.segmentation.build import SegmenterInfo, build_segmenter, is_segmenter, load_segmenter, save_segmenter
from mupvss.segmentation.losses import collision_loss, segmentation_loss
from mupvss.stages.scoring import taken_away
from mupvss.training.batches import DenseSample, DenseViews, Manner, dense_batches

UNREFINED = MasksConfig(crf="none")


@pytest.fixture
def square():
    """A bright square, and a map that is sure of its middle only."""
    image = np.full((48, 56, 3), 40, np.uint8)
    image[12:36, 16:40] = 210
    maps = np.zeros((1, 12, 14), np.float32)
    maps[0, 3:9, 4:10] = 0.5
    maps[0, 5:7, 6:8] = 1.0
    truth = np.zeros((48, 56), np.uint8)
    truth[12:36, 16:40] = 3
    return Seeds(np.array([3], np.int16), maps, (48, 56), 4), image, truth


def test_a_mask_follows_the_picture(square):
    seeds, image, truth = square
    refined = refine_mask(seeds, image, 0.35, MasksConfig(crf="psa"), 1)
    assert (refined.labels() == truth).mean() > 0.97
    assert refined.confidence().dtype == np.uint8
    np.testing.assert_allclose(refined.probabilities.sum(0), 1, atol=1e-4)
    value, label = refined.best()
    assert (label == 3).all()
    np.testing.assert_allclose(value, refined.probabilities[1])
    for sharpness in (1.0, 4.0):  # it moves no boundary by itself
        assert np.array_equal(refine_mask(seeds, image, 0.35, UNREFINED, sharpness).labels() > 0, seeds.best()[0] > 0.35)
    plain = refine_mask(seeds, image, 0.35, UNREFINED, 1)
    assert (plain.labels() == seeds.labels(0.35)).mean() > 0.99


def test_the_crf_of_a_reduced_picture(square):
    seeds, image, truth = square
    refined = refine_mask(seeds, image, 0.35, MasksConfig(crf="psa", crf_pixels=700))
    assert refined.probabilities.shape == (2, 24, 28)
    assert refined.labels().shape == truth.shape
    assert (refined.labels() == truth).mean() > 0.97
    assert refined.confidence().shape == refined.best()[0].shape == truth.shape


def test_what_the_threshold_decides_is_unsure(square):
    seeds, image, _ = square
    refined, labels = pseudo_mask(seeds, image, 0.5, MasksConfig(crf="none", margin=0.6))
    assert np.array_equal(refined.labels(), refine_mask(seeds, image, 0.5, UNREFINED).labels())
    assert set(np.unique(labels)) == {0, 3, 255}
    assert labels[24, 28] == 3
    assert labels[0, 0] == 0
    assert labels[14, 18] == 255


def test_what_the_crf_takes_away_is_counted(square):
    """A faint line that no edge in the picture supports vanishes; the square stays."""
    seeds, image, _ = square
    line = np.zeros((1, 12, 14), np.float32)
    line[0, 10, 1:13] = 0.8
    both = Seeds(np.array([3, 1], np.int16), np.concatenate((seeds.maps, line)), seeds.size, 4)
    before, after = refine_mask(both, image, 0.4, MasksConfig(crf="psa")).drawn
    assert before.sum() == pytest.approx(1)
    assert after.sum() == pytest.approx(1)
    assert 0.05 < before[2] < 0.2
    assert after[2] < 0.2 * before[2]
    assert after[1] > 0.9 * before[1]
    before, after = refine_mask(both, image, 0.4, UNREFINED).drawn
    assert np.array_equal(before, after)
    (sentence,) = taken_away(np.array([[5.0, 2, 3, 0], [7.0, 1.1, 1, 0]]), ("dog", "scratch", "cat"), "loses {}")
    assert sentence == "loses 67 % of scratch"
    assert not list(taken_away(np.array([[1.0, 1e-4], [1.0, 0]]), ("dog",), "loses {}"))  # too little to say anything about it
    assert not list(taken_away(np.ones((2, 3)), ("dog", "cat"), "loses {}"))


def test_no_tag_is_background_throughout(square):
    _, image, _ = square
    empty = Seeds(np.zeros(0, np.int16), np.zeros((0, 12, 14), np.float32), (48, 56), 4)
    refined = refine_mask(empty, image, 0.4, MasksConfig(crf="psa"))
    assert not refined.labels().any()
    assert (refined.confidence() == 255).all()
    assert not refined.best()[0].any()
    assert not pseudo_mask(empty, image, 0.4, MasksConfig(crf="psa"))[1].any()


def dense_sample(height, width):
    grid = np.arange(height * width).reshape(height, width)
    image = np.stack([grid % 251, grid // 251, np.zeros_like(grid)], -1).astype(np.uint8)
    labels = (grid % 7).astype(np.uint8)
    return DenseSample("p", lambda: Image.fromarray(image), lambda: labels, lambda: (labels * 30).astype(np.uint8))


def one(views, n):
    """-> image (3, S, S), labels and weights (S, S) of the n-th view, as a network gets them."""
    (batch,) = dense_batches(views, 1, n, n + 1, Manner(workers=0))
    tensors = batch.on(torch.device("cpu"))
    return tensors.images[0], tensors.labels[0], tensors.weights[0]


@pytest.mark.parametrize("size", [(40, 60), (20, 90), (9, 7)])
def test_views_keep_picture_labels_and_confidence_together(size, monkeypatch):
    """At scale 1 every view is a plain crop: labels must match the pixels they came with, what is outside must be ignored."""
    monkeypatch.setattr("mupvss.training.batches.BRIGHTNESS", 0.0)
    views = DenseViews([dense_sample(*size)], 32, (1.0, 1.0), True, seed=1)
    outside = 0
    for n in range(12):
        image, labels, weights = one(views, n)
        assert image.shape == (3, 32, 32)
        mean, std = torch.tensor([0.485, 0.456]).view(2, 1, 1), torch.tensor([0.229, 0.224]).view(2, 1, 1)
        pixel = ((image[:2] * std + mean) * 255).round().long()
        inside = labels != 255
        grid = pixel[0] + 251 * pixel[1]
        assert inside.any()
        assert torch.equal((grid % 7)[inside], labels[inside])
        assert torch.equal((weights * 255).round().long()[inside], labels[inside] * 30)
        assert not weights[~inside].any()
        assert not image[:, ~inside].any()
        outside += int((~inside).sum())
    assert (outside > 0) == (min(size) < 32)


def test_views_repeat_and_differ():
    views = DenseViews([dense_sample(40, 60)], 32, (0.6, 1.4), True, seed=1)
    assert torch.equal(one(views, 3)[0], one(views, 3)[0])
    assert not torch.equal(one(views, 3)[0], one(views, 4)[0])
    other = DenseViews([dense_sample(40, 60)], 32, (0.6, 1.4), True, seed=2)
    assert not torch.equal(one(views, 3)[0], one(other, 3)[0])


def test_loss_by_hand():
    logits = torch.tensor([[[[2.0, 0.0]], [[0.0, 1.0]]]])  # (1, 2, 1, 2)
    labels = torch.tensor([[[0, 1]]])
    each = [-torch.log_softmax(torch.tensor([2.0, 0.0]), 0)[0], -torch.log_softmax(torch.tensor([0.0, 1.0]), 0)[1]]
    weights = torch.tensor([[[1.0, 0.25]]])
    expected = (each[0] + 0.25 * each[1]) / 1.25
    torch.testing.assert_close(segmentation_loss(logits, labels, weights), expected)
    labels[0, 0, 1] = 255
    torch.testing.assert_close(segmentation_loss(logits, labels, weights), each[0])


def test_collision_loss_by_hand():
    logits = torch.tensor([[[[2.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]], [[0.0, 0.0, 3.0]]]])  # (1, 3, 1, 3)
    said = logits.softmax(1)[0, :, 0].double()
    labels, tags = torch.tensor([[[0, 1, 1]]]), torch.tensor([[True, False]])
    weights = torch.tensor([[[1.0, 0.25, 0.5]]])
    pixels = [said[0, 0], 0.25 * said[1, 1] + 0.75 * said[0, 1], 0.5 * said[1, 2] + 0.5 * said[0, 2]]
    expected = -torch.stack(pixels).log().mean().float()
    torch.testing.assert_close(collision_loss(logits, labels, weights, tags, True), expected)
    # without a background, a picture with one tag leaves nothing to be unsure about
    alone = -torch.stack([said[1, 1], said[1, 2]]).log().mean().float()
    torch.testing.assert_close(collision_loss(logits, torch.tensor([[[255, 1, 1]]]), weights, tags, False), alone)
    both = torch.tensor([[True, True]])
    shared = -(0.25 * said[1, 1] + 0.375 * (said[0, 1] + said[2, 1])).log().float()
    torch.testing.assert_close(collision_loss(logits, torch.tensor([[[255, 1, 255]]]), weights, both, True), shared)
    sure = torch.ones_like(weights)
    torch.testing.assert_close(collision_loss(logits, labels, sure, tags, True), segmentation_loss(logits, labels, sure))


@pytest.mark.parametrize("loss", [segmentation_loss, lambda *given: collision_loss(*given, torch.ones(1, 2).bool(), True)])
def test_loss_where_everything_is_ignored(loss):
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    found = loss(logits, torch.full((1, 8, 8), 255), torch.ones(1, 8, 8))
    found.backward()
    assert found.item() == 0
    assert torch.isfinite(logits.grad).all()


NETWORKS = {"vit": ViTSegment(), "resnet38": DeepLabSegment(channels=1 / 32)}


@pytest.mark.parametrize("which", NETWORKS)
def test_network_and_its_checkpoint(tmp_path, tiny_model, which):
    torch.manual_seed(0)
    network = build_segmenter(NETWORKS[which], tiny_model, 3, None)
    images = torch.randn(2, 3, 32, 48)
    logits = network(images)
    assert logits.shape == (2, 4, *((8, 12) if which == "vit" else (4, 6)))
    logits.sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None and "norm." not in n] == []
    save_segmenter(tmp_path / "m.safetensors", network, SegmenterInfo(("a", "b", "c"), tiny_model, NETWORKS[which]))
    assert is_segmenter(tmp_path / "m.safetensors")
    again, info = load_segmenter(tmp_path / "m.safetensors")
    assert info.classes == ("a", "b", "c")
    torch.testing.assert_close(again.eval()(images), network.eval()(images))


@pytest.mark.parametrize("size", [(1, 1), (50, 33)])
def test_predictor_takes_any_size_and_keeps_to_the_tags(tmp_path, tiny_model, size):
    torch.manual_seed(0)
    network = build_segmenter(ViTSegment(), tiny_model, 3, None)
    save_segmenter(tmp_path / "m.safetensors", network, SegmenterInfo(("a", "b", "c"), tiny_model, ViTSegment()))
    predictor = SegmentationPredictor.open(tmp_path / "m.safetensors")
    image = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    found = predictor(image)
    assert found.labels.shape == (size[1], size[0])
    assert set(found.scores) == {"a", "b", "c"}
    assert set(np.unique(predictor(image, ["b"]).labels)) <= {0, 2}
    with pytest.raises(ValueError, match="unknown tag 'd'"):
        predictor(image, ["d"])

"""The image-level head of the segmentation network, and the one size it sees its pictures at."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import info_of, network_of
from PIL import Image
from safetensors.torch import load_file

from mupvss.data.preprocess import working_scale
from mupvss.errors import WeightsError
from mupvss.methods.checkpoint import save_model
from mupvss.model.pretrained import locate, read_state
from mupvss.options import ViTConfig, ViTSegment
from mupvss.predict.segmenter import SegmentationPredictor
from mupvss.segmentation.build import SegmenterInfo, build_segmenter
from mupvss.segmentation.losses import known, presence_loss, present, weighed_by_presence
from mupvss.training.batches import DenseSample, DenseViews, Manner, dense_batches


def test_what_is_present_by_hand():
    labels = torch.zeros(3, 20, 20, dtype=torch.long)
    labels[0, :5, :5] = 2
    labels[0, 10] = 255  # unsure: neither here nor there
    labels[1, 0, 0] = 1  # one pixel of 400 is more than LEAST
    assert present(labels, 3).tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    large = torch.zeros(1, 100, 100, dtype=torch.long)
    large[0, 0, 0] = 1  # one of 10,000 is less
    assert not present(large, 1).any()


def test_a_tagged_class_is_not_taught_as_absent_where_the_mask_is_unsure():
    """Class 1 has pixels, class 2 is tagged and may lie under what is unsure, class 3 is not tagged."""
    labels = torch.zeros(3, 20, 20, dtype=torch.long)
    labels[:, :5, :5] = 1
    labels[0, 10] = 255
    labels[2, 10] = 255
    weights = torch.ones(3, 20, 20)
    weights[2, 10] = 0  # outside the picture: nothing lies there
    tags = torch.tensor([[True, True, False]]).expand(3, 3)
    sure = known(present(labels, 3), labels, weights, tags)
    assert sure.tolist() == [[True, False, True], [True, True, True], [True, True, True]]
    said = torch.zeros(3, 3, requires_grad=True)
    loss = presence_loss(said, labels, weights, tags)
    loss.backward()
    assert loss.item() == pytest.approx(8 * math.log(2) / 9)
    assert (said.grad[:, 0] < 0).all()  # there
    assert said.grad[:, 1].sign().tolist() == [0, 1, 1]
    assert (said.grad[:, 2] > 0).all()


def test_crops_bear_the_tags_of_their_own_picture():
    picture, labels = Image.new("RGB", (40, 30)), np.zeros((30, 40), np.uint8)
    samples = [DenseSample(str(c), lambda: picture, lambda: labels, None, np.arange(8) == c) for c in range(8)]
    views = DenseViews(samples, 16, (1.0, 1.0), False, seed=0)
    (batch,) = dense_batches(views, 8, 0, 1, Manner(workers=0))
    assert sorted(batch.origins) == [*"01234567"]
    assert batch.on(torch.device("cpu")).tags.int().argmax(1).tolist() == [int(name) for name in batch.origins]


def test_a_class_is_weighed_by_the_probability_that_it_is_there():
    logits = torch.randn(2, 4, 3, 5)
    chances = torch.tensor([[0.9, 0.01, 0.5], [0.5, 0.5, 0.5]])
    found = weighed_by_presence(logits, torch.logit(chances)).softmax(1)
    by_hand = logits.exp() * torch.cat((torch.ones(2, 1), chances), 1)[:, :, None, None]
    torch.testing.assert_close(found, by_hand / by_hand.sum(1, keepdim=True))


@pytest.mark.parametrize("presence", [0.0, 1.0])
def test_the_head_is_there_if_asked_for_and_learns(tiny_model, presence):
    network = build_segmenter(ViTSegment(presence=presence), tiny_model, 3, None).train()
    images = torch.randn(2, 3, 2 * tiny_model.patch_size, 2 * tiny_model.patch_size)
    logits, said = network(images, True)
    assert logits.shape[:2] == (2, 4)
    if presence == 0:
        assert said is None
        assert network.presence is None
        return
    assert said.shape == (2, 3)
    logits.square().mean().backward()
    assert network.presence.weight.grad.abs().sum() > 0  # the pixels teach it too
    network.eval()
    with torch.no_grad():
        plain = network(images)
        network.presence.bias.fill_(-50.0)  # nothing is there
        silent = network(images)
        assert (silent[:, 1:] < plain[:, 1:] - 40).all()
        torch.testing.assert_close(silent[:, :1], plain[:, :1])
        assert (silent.argmax(1) == 0).all()


def test_pictures_of_every_size_are_seen_at_one():
    assert working_scale((4000, 3000), 320) == pytest.approx(320 / math.sqrt(12e6))
    assert working_scale((160, 160), 320) == 2
    assert working_scale((500, 375), 0) == 1
    assert working_scale((4000, 3000), 0) == 1 / 5  # what a picture of twelve million pixels is searched at


def test_crops_show_as_much_of_a_large_photograph_as_of_a_small_one():
    """A picture that is black on its left half: half of every uncropped view is black, whatever the picture's size."""
    shares = []
    for side in (64, 640):
        pixels = np.full((side, side, 3), 255, np.uint8)
        pixels[:, : side // 2] = 0
        labels = np.where(pixels[..., 0] == 0, 1, 0).astype(np.uint8)
        sample = DenseSample("p", lambda p=pixels: Image.fromarray(p), lambda x=labels: x)
        views = DenseViews([sample], 32, (1.0, 1.0), False, seed=0, size=32)
        (batch,) = dense_batches(views, 1, 0, 1, Manner(workers=0))
        assert (batch.labels != 255).all()
        shares.append(float((batch.labels == 1).float().mean()))
    assert shares == [0.5, 0.5]


def test_the_predictor_looks_at_that_size(tiny_model):
    network = build_segmenter(ViTSegment(), tiny_model, 2, None)
    seen = []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape[2:])))
    config = ViTSegment(size=4 * tiny_model.patch_size, scales=(0.5, 1.0), crf="none")
    predictor = SegmentationPredictor(network, SegmenterInfo(("a", "b"), tiny_model, config), device="cpu")
    patch = tiny_model.patch_size
    for side in (50, 500):
        seen.clear()
        assert predictor(Image.new("RGB", (side, side))).labels.shape == (side, side)
        assert seen == [(2 * patch, 2 * patch), (4 * patch, 4 * patch)]


def test_a_network_starts_from_a_trained_decoder(tmp_path):
    """Everything but the layers of its own classes, and the backbone stays the classifier's."""
    model = ViTConfig(backbone="micro", patch_size=8, image_size=96)
    path = tmp_path / "classifier.safetensors"
    save_model(path, network_of("vit-cam", 2, model), info_of(("a", "b"), "vit-cam", model))
    file = locate("package:drawn")
    assert file.stat().st_size < 4_000_000
    trained, classifier = read_state(file), load_file(path)
    network = build_segmenter(ViTSegment(decoder="package:drawn"), model, 2, path)
    own = network.state_dict()
    taken = network.decoder_without_classes()
    assert len(taken) > 30
    for name in taken:
        torch.testing.assert_close(own[name].float(), trained[name].float())
    for name, value in classifier.items():
        if name.startswith("backbone."):
            assert torch.equal(own[name], value), name
    left = {name.split(".")[0] for name in own} - {name.split(".")[0] for name in taken}
    assert left == {"backbone", "presence"}
    assert not {"fuse.2.weight", "fuse.2.bias"} & set(taken)


def test_a_decoder_that_is_none_or_of_another_backbone_is_refused(tmp_path):
    model = ViTConfig(backbone="micro", patch_size=8, image_size=96)
    path = tmp_path / "classifier.safetensors"
    save_model(path, network_of("vit-cam", 2, model), info_of(("a", "b"), "vit-cam", model))
    with pytest.raises(WeightsError, match=r"classifier\.safetensors: 'tokens\.0\.0\.weight' is missing.*segment\.decoder needs"):
        build_segmenter(ViTSegment(decoder=str(path)), model, 2, path)
    wide = ViTConfig(backbone="tiny", patch_size=16, image_size=32)
    other = tmp_path / "wide.safetensors"
    save_model(other, network_of("vit-cam", 2, wide), info_of(("a", "b"), "vit-cam", wide))
    with pytest.raises(WeightsError, match=r"drawn\.safetensors: 'tokens\.0\.0\.weight' is \(128,\), expected \(192,\)"):
        build_segmenter(ViTSegment(decoder="package:drawn"), wide, 2, other)

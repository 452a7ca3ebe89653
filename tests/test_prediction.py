"""What a predictor takes and answers: any form of picture, any size, one path for all."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from helpers import info_of, network_of
from PIL import Image, ImageCms

from mupvss import load
from mupvss.data.images import array_to_rgb, read_image, to_rgb
from mupvss.data.masks import bounding_box
from mupvss.data.preprocess import MAX_SEARCH_PIXELS, reduction
from mupvss.errors import DataError, UserError
from mupvss.masks.pseudo import pseudo_mask
from mupvss.methods.checkpoint import save_model
from mupvss.options import MasksConfig, SearchConfig, ViTSegment
from mupvss.predict.prediction import Prediction, as_picture
from mupvss.predict.predictor import Predictor
from mupvss.predict.segmenter import SegmentationPredictor
from mupvss.segmentation.build import SegmenterInfo, build_segmenter, save_segmenter

CLASSES = ("cat", "dog", "person")


@pytest.fixture
def classifier(tmp_path):
    torch.manual_seed(0)
    save_model(tmp_path / "c.safetensors", network_of(), info_of(CLASSES))
    search = SearchConfig(scales=(1.0,), precision="fp32")
    return Predictor.open(tmp_path / "c.safetensors", search, threshold=0.4, device="cpu")


@pytest.fixture
def segmenter(tmp_path, tiny_model):
    torch.manual_seed(0)
    config = ViTSegment(scales=(1.0,))
    save_segmenter(
        tmp_path / "s.safetensors", build_segmenter(config, tiny_model, 3, None), SegmenterInfo(CLASSES, tiny_model, config)
    )
    return SegmentationPredictor.open(tmp_path / "s.safetensors", device="cpu")


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8))


def test_an_answer_in_numbers():
    labels = np.zeros((6, 9), np.uint8)
    labels[1:4, 2:7], labels[5, 8] = 2, 3
    found = Prediction(CLASSES, labels, labels / 3, ("dog", "person"), {}, {})
    assert found.areas == {"dog": 15, "person": 1}
    assert found.boxes == {"dog": (2, 1, 7, 4), "person": (8, 5, 9, 6)}
    assert found.mask("dog").sum() == 15
    assert not found.mask("cat").any()
    with pytest.raises(ValueError, match="unknown tag 'cow'"):
        found.mask("cow")
    assert bounding_box(labels > 0) == (2, 1, 9, 6)


@pytest.mark.parametrize("which", ["classifier", "segmenter"])
def test_both_networks_answer_alike(which, request, picture, tmp_path):
    predictor = request.getfixturevalue(which)
    found = predictor(picture, ["cat", "person"])
    assert found.labels.shape == found.confidence.shape == (40, 56)
    assert set(np.unique(found.labels)) <= {0, 1, 3}
    assert set(found.probabilities) == {"cat", "person"}
    assert all(p.shape == (40, 56) and p.min() >= 0 and p.max() <= 1 + 1e-6 for p in found.probabilities.values())
    assert set(found.scores) == set(CLASSES)
    picture.save(tmp_path / "p.png")
    for same in (np.array(picture), tmp_path / "p.png", str(tmp_path / "p.png")):
        assert np.array_equal(predictor(same, ["cat", "person"]).labels, found.labels)
    batch = list(predictor.batch([picture, picture.rotate(90, expand=True)], [["cat", "person"], None]))
    assert np.array_equal(batch[0].labels, found.labels)
    assert batch[1].labels.shape == (56, 40)
    assert not predictor(picture, []).labels.any()
    with pytest.raises(ValueError, match="zip"):
        list(predictor.batch([picture, picture], [None]))
    with pytest.raises(ValueError, match="unknown tag 'cow'"):
        predictor(picture, ["cow"])
    with pytest.raises(ValueError, match="expected a list"):
        predictor(picture, "cat")


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (3000, 2)])
@pytest.mark.parametrize("which", ["classifier", "segmenter"])
def test_odd_sizes(which, request, size):
    predictor = request.getfixturevalue(which)
    found = predictor(Image.new("RGB", size, (200, 10, 10)), ["dog"])
    assert found.labels.shape == size[::-1]
    assert np.isfinite(found.confidence).all()


@pytest.mark.slow
def test_a_picture_of_12_million_pixels(classifier, segmenter):
    tile = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    picture = Image.fromarray(tile).resize((4000, 3000))
    assert 3000 * 4000 / reduction(picture.size) ** 2 <= MAX_SEARCH_PIXELS
    seeds = classifier.search(picture, [1], ["cam"])["cam"]
    assert seeds.size == (3000, 4000)
    assert seeds.stride == 4 * reduction(picture.size)
    refined, labels = pseudo_mask(seeds, np.asarray(picture), 0.4, MasksConfig(margin=0.0))
    assert labels.shape == (3000, 4000)
    assert refined.labels().shape == refined.confidence().shape == (3000, 4000)
    assert segmenter(picture, ["dog"]).labels.shape == (3000, 4000)


def test_reduced_pictures_give_the_same_masks_but_coarser(classifier):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)).resize((928, 696))
    assert reduction(picture.size) == 2
    whole = classifier(picture.reduce(2), ["cat"]).confidence
    half = classifier(picture, ["cat"]).confidence
    assert half.shape == (696, 928)
    np.testing.assert_allclose(half.reshape(348, 2, 464, 2).mean((1, 3)), whole, atol=0.05)


def gradient(height=20, width=30):
    return np.linspace(0, 1, height * width).reshape(height, width)


def test_every_kind_of_array():
    grey = (gradient() * 255).astype(np.uint8)
    expected = np.stack([grey] * 3, -1)
    for array in (grey, grey[..., None], expected, (grey.astype(np.uint16) * 257), (grey.astype(np.int32) * 257), grey / 255.0):
        found = np.asarray(array_to_rgb(array))
        assert np.abs(found.astype(int) - expected).max() <= 1
    clear = np.dstack([expected, np.zeros_like(grey)])
    assert (np.asarray(array_to_rgb(clear)) == 255).all()
    for bad in (
        np.zeros((2, 3, 4, 5)),
        np.zeros((0, 4), np.uint8),
        np.full((4, 4), 2.0),
        np.full((4, 4), np.nan),
        np.zeros((4, 4, 2)),
    ):
        with pytest.raises(ValueError, match="expected"):
            array_to_rgb(bad)


def test_every_kind_of_file(tmp_path):
    rgb = Image.fromarray(
        np.dstack([(gradient() * 255).astype(np.uint8), np.full((20, 30), 90, np.uint8), np.zeros((20, 30), np.uint8)])
    )
    turned = rgb.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    turned.save(tmp_path / "exif.png", exif=exif)
    assert np.array_equal(np.asarray(read_image(tmp_path / "exif.png")), np.asarray(rgb))

    deep = (gradient() * 65535).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(deep).save(tmp_path / "deep.tif")
    for name in ("deep.png", "deep.tif"):
        assert np.abs(np.asarray(read_image(tmp_path / name))[..., 0].astype(int) - deep / 257).max() <= 1

    layer = rgb.copy()
    layer.putalpha(Image.fromarray((gradient() > 0.5).astype(np.uint8) * 255))
    layer.save(tmp_path / "alpha.png")
    found = np.asarray(read_image(tmp_path / "alpha.png"))
    assert (found[:9] == 255).all()
    assert np.array_equal(found[11:], np.asarray(rgb)[11:])
    palette = rgb.convert("P", palette=Image.Palette.ADAPTIVE)
    palette.info["transparency"] = palette.getpixel((0, 0))
    palette.save(tmp_path / "palette.png", transparency=palette.getpixel((0, 0)))
    assert tuple(np.asarray(read_image(tmp_path / "palette.png"))[0, 0]) == (255, 255, 255)

    rgb.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    assert np.abs(np.asarray(read_image(tmp_path / "cmyk.jpg")).astype(int) - np.asarray(rgb)).mean() < 6
    damaged = rgb.convert("CMYK")
    damaged.info["icc_profile"] = b"no profile"
    assert np.abs(np.asarray(to_rgb(damaged)).astype(int) - np.asarray(rgb)).mean() < 2
    rgb.convert("1").save(tmp_path / "bits.png")
    assert read_image(tmp_path / "bits.png").mode == "RGB"


def test_a_profile_of_colours_is_used(monkeypatch):
    seen = []
    monkeypatch.setattr(ImageCms, "ImageCmsProfile", lambda stream: seen.append(stream.read()) or "profile")
    monkeypatch.setattr(ImageCms, "profileToProfile", lambda image, source, to, outputMode: Image.new("RGB", image.size, "red"))  # noqa: N803
    picture = Image.new("CMYK", (4, 3))
    picture.info["icc_profile"] = b"profile of a printer"
    assert to_rgb(picture).getpixel((0, 0)) == (255, 0, 0)
    assert seen == [b"profile of a printer"]


def test_what_is_no_picture(tmp_path):
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "empty.png").write_bytes(b"")
    whole = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(whole, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(whole.getvalue()[:300])
    for name in ("text.jpg", "empty.png", "cut.jpg"):
        with pytest.raises(DataError, match=name):
            read_image(tmp_path / name)
    with pytest.raises(DataError, match="no such picture"):
        read_image(tmp_path / "absent.jpg")


@pytest.mark.parametrize("side", [13_000, 50_000])
def test_a_header_that_promises_too_much(tmp_path, side):
    """Billions of pixels in a few bytes: refused before anything is decoded."""
    small = io.BytesIO()
    Image.new("L", (1, 1)).save(small, "PNG")
    header = bytearray(small.getvalue())
    header[16:24] = struct.pack(">II", side, side)
    header[29:33] = struct.pack(">I", zlib.crc32(bytes(header[12:29])))
    (tmp_path / "bomb.png").write_bytes(bytes(header))
    with pytest.raises(DataError, match=r"bomb.png: .*pixels.*make it smaller"):
        read_image(tmp_path / "bomb.png")


def test_nothing_is_fetched_from_the_web():
    with pytest.raises(UserError, match="save the picture, and give its path"):
        as_picture("https://example.org/p.png")


def test_load_takes_a_checkpoint(classifier, segmenter, tmp_path):
    assert isinstance(load(tmp_path / "c.safetensors", "cpu"), Predictor)
    assert isinstance(load(tmp_path / "s.safetensors", "cpu"), SegmentationPredictor)

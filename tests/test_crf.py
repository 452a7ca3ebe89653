"""The dense CRF against the field's own implementation, against the exact sum, and where input is bad."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mupvss.crf import PRESETS, DenseCRF, Strengths, dense_crf, probabilities_from_labels
from mupvss.data.images import read_image

BACKENDS = ("numba", "torch")


def scene(height=60, width=83, labels=3, seed=0):
    """A picture of two halves with noise, and smooth probabilities that follow them loosely."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 60, np.uint8)
    image[:, width // 2 :] = (200, 120, 90)
    image = np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)
    small = rng.normal(size=(labels, 5, 6)).astype(np.float32) * 2
    large = np.stack([np.asarray(Image.fromarray(s).resize((width, height), Image.Resampling.BICUBIC)) for s in small])
    large[1, :, width // 2 :] += 1.5
    p = np.exp(large - large.max(0))
    return image, p / p.sum(0)


def peer(image, probabilities, strengths, steps):
    densecrf = pytest.importorskip("pydensecrf.densecrf", reason="the peer, pydensecrf2, is not installed")
    crf = densecrf.DenseCRF2D(image.shape[1], image.shape[0], len(probabilities))
    crf.setUnaryEnergy(np.ascontiguousarray(-np.log(np.maximum(probabilities, 1e-5)).reshape(len(probabilities), -1), np.float32))
    crf.addPairwiseGaussian(sxy=strengths.gaussian_xy, compat=strengths.gaussian_weight)
    crf.addPairwiseBilateral(
        sxy=strengths.bilateral_xy, srgb=strengths.bilateral_rgb, rgbim=np.array(image), compat=strengths.bilateral_weight
    )
    return np.array(crf.inference(steps)).reshape(probabilities.shape)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("preset", PRESETS)
def test_equals_the_peer(backend, preset):
    image, probabilities = scene()
    found = dense_crf(image, probabilities, preset, 10, backend=backend)
    expected = peer(image, probabilities, PRESETS[preset], 10)
    assert (found.argmax(0) == expected.argmax(0)).mean() >= 0.999
    np.testing.assert_allclose(found, expected, atol=6e-3)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-4)


@pytest.mark.parametrize("labels", [1, 2, 5, 21])
def test_any_number_of_labels_and_threads(labels):
    image, probabilities = scene(40, 31, labels=max(labels, 2), seed=labels)
    probabilities = probabilities[:labels]
    one, two = (dense_crf(image, probabilities, threads=threads, backend="numba") for threads in (1, 2))
    other = dense_crf(image, probabilities, backend="torch")
    np.testing.assert_allclose(one, two, atol=1e-4)
    np.testing.assert_allclose(one, other, atol=2e-4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("labels", [1, 2, 3, 7])
def test_several_questions_at_once_are_answered_as_one_after_the_other(backend, labels):
    image, first = scene(40, 31, labels=max(labels, 2), seed=1)
    stack = np.stack([(p := first[:labels] ** power) / p.sum(0) for power in (1.0, 0.5, 2.0)])
    crf = DenseCRF(image, "irn", backend=backend)
    found = crf.several(stack)
    np.testing.assert_allclose(found, np.stack([crf(p) for p in stack]), atol=1e-5)
    assert found.shape == stack.shape
    assert labels == 1 or np.abs(found[1] - found[2]).max() > 0.1


@pytest.mark.parametrize("backend", BACKENDS)
def test_near_the_exact_sum(backend):
    """One step of a purely Gaussian kernel, against the sum over all pairs: the lattice is an approximation, but a close one."""
    image, probabilities = scene(18, 20)
    strengths = Strengths(3, 4.0, 80, 13, 0.0)
    y, x = np.mgrid[:18, :20].reshape(2, -1).astype(float)
    k = np.exp(-((x[:, None] - x) ** 2 + (y[:, None] - y) ** 2) / (2 * 9))
    k /= np.sqrt(k.sum(1))[:, None] * np.sqrt(k.sum(1))
    logits = np.log(probabilities.reshape(3, -1)) + 4 * probabilities.reshape(3, -1) @ k
    exact = np.exp(logits) / np.exp(logits).sum(0)
    found = dense_crf(image, probabilities, strengths, 1, backend=backend).reshape(3, -1)
    assert np.abs(found - exact).mean() < 0.01


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_follows_the_edge(backend):
    image, _ = scene(40, 60)
    truth = np.zeros((40, 60), int)
    truth[:, 30:] = 1
    noisy = np.where(np.random.default_rng(0).random(truth.shape) < 0.25, 1 - truth, truth)
    found = dense_crf(image, probabilities_from_labels(noisy, 2), "irn", backend=backend).argmax(0)
    assert (found == truth).mean() > 0.99


def test_no_step_gives_the_probabilities_back():
    image, probabilities = scene(20, 20)
    for backend in BACKENDS:
        np.testing.assert_allclose(dense_crf(image, probabilities, steps=0, backend=backend), probabilities, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 2)])
def test_tiny_pictures(size):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    probabilities = np.full((2, *size), 0.5, np.float32)
    for backend in BACKENDS:
        assert np.isfinite(dense_crf(image, probabilities, backend=backend)).all()


def test_probabilities_of_zero_can_still_win():
    image, probabilities = scene(30, 30)
    probabilities[0, 10, 10] = 0
    for backend in BACKENDS:
        assert np.isfinite(dense_crf(image, probabilities, backend=backend)).all()


def test_bad_input():
    image, probabilities = scene(10, 12)
    for change, message in (
        ({"strengths": "pza"}, "no CRF preset"),
        ({"image": image.astype(float)}, "uint8"),
        ({"probabilities": probabilities[:, :5]}, "expected \\(L, H, W\\)"),
        ({"steps": -1}, "no less than 0"),
        ({"strengths": Strengths(3, 3, 80, 0.1, 10), "backend": "numba"}, "too narrow"),
        ({"strengths": Strengths(3, 3, 80, 0.1, 10), "backend": "torch"}, "too narrow"),
    ):
        with pytest.raises(ValueError, match=message):
            dense_crf(**{"image": image, "probabilities": probabilities, **change})
    with pytest.raises(ValueError, match="go up to 3"):
        probabilities_from_labels(np.array([[0, 3]]), 3)


@pytest.mark.slow
def test_equals_the_peer_on_real_pictures(shared):
    folder = shared / "voc-animals" / "VOC2012" / "JPEGImages"
    for index, path in enumerate(sorted(folder.glob("2007*.jpg"))[:10:2]):
        image = np.array(read_image(path))
        _, probabilities = scene(*image.shape[:2], seed=index)
        found = dense_crf(image, probabilities, "psa")
        assert (found.argmax(0) == peer(image, probabilities, PRESETS["psa"], 10).argmax(0)).mean() >= 0.999

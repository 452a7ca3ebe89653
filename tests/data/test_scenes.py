"""The drawn scenes: frozen, exact, varied."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from mupvss.data.scenes.render import CLASSES, draw_scene
from mupvss.data.scenes.source import load_scenes
from mupvss.data.sources import load_dataset
from mupvss.errors import DataError
from mupvss.options import ScenesConfig, ScenesData

FROZEN = "6b452147cbc9fd68fdf781e7994ea7e00174e172f06696cf3f6b92510c311310"


def test_the_generator_is_frozen():
    """Figures measured on the scenes hold for this generator only. Do not change the hash: make another data set."""
    digest = hashlib.sha256()
    for index in range(8):
        scene = draw_scene(0, index, 96)
        digest.update(scene.image.tobytes() + scene.mask.tobytes())
    assert digest.hexdigest() == FROZEN


def test_seeds_and_pictures_differ_and_repeat():
    first = draw_scene(1, 5, 48)
    assert np.array_equal(first.image, draw_scene(1, 5, 48).image)
    assert not np.array_equal(first.image, draw_scene(2, 5, 48).image)
    assert not np.array_equal(first.image, draw_scene(1, 6, 48).image)


@pytest.mark.parametrize("size", [32, 96, 131])
def test_any_size_draws_the_same_scene(size):
    scene = draw_scene(3, 1, size)
    assert scene.image.shape == (size, size, 3)
    big = draw_scene(3, 1, 2 * size)
    assert np.mean(big.mask[::2, ::2] == scene.mask) > 0.9


def test_what_the_scenes_hold():
    scenes = [draw_scene(9, i, 64) for i in range(150)]
    ids = [set(np.unique(s.mask)) - {0} for s in scenes]
    assert len(CLASSES) >= 6
    assert set().union(*ids) == set(range(1, len(CLASSES) + 1))
    assert any(not entry for entry in ids)  # valid negatives
    assert sum(len(entry) > 1 for entry in ids) > 30
    assert all((s.mask[s.part] > 0).all() for s in scenes)
    body = sum((s.mask > 0).sum() for s in scenes)
    part = sum(s.part.sum() for s in scenes)
    assert part < 0.15 * body  # the telling part is small


def test_as_a_data_set():
    config = ScenesData(scenes=ScenesConfig(seed=4, size=48, train=20, seeds=5), classes=("fish", "kite"))
    train, seeds = load_scenes(config, "train"), load_scenes(config, "seeds")
    assert (len(train.samples), len(seeds.samples)) == (20, 5)
    for sample in train.samples:
        mask = sample.open_mask()
        assert set(np.unique(mask)) <= {0, 1, 2}
        assert {("fish", "kite")[i - 1] for i in np.unique(mask) if i} == sample.tags
    assert not {s.name for s in load_scenes(config, "val").samples} & {s.name for s in train.samples}
    with pytest.raises(DataError, match="unicorn"):
        load_scenes(ScenesData(classes=("unicorn",)), "train")


def test_only_what_is_asked_for_is_drawn(monkeypatch):
    real, drawn = np.random.default_rng, []

    def generator(seed):
        drawn.append(seed[1])
        return real(seed)

    monkeypatch.setattr(np.random, "default_rng", generator)  # each drawing begins with its own
    config = ScenesData(scenes=ScenesConfig(seed=77, size=32, train=10_000))
    dataset = load_dataset(config, "train", limit=3)
    assert drawn == []
    assert [sample.name for sample in dataset.samples] == ["scene-00000000", "scene-00000001", "scene-00000002"]
    assert drawn == [0, 1, 2]
    assert dataset.samples[-1].name == "scene-00000002"
    with pytest.raises(IndexError):
        dataset.samples[3]


def test_other_classes_can_be_ignored():
    scenes = ScenesConfig(seed=4, size=48, train=20)
    config = ScenesData(scenes=scenes, classes=("fish",), other_classes="ignore")
    masks = [sample.open_mask() for sample in load_scenes(config, "train").samples]
    assert {int(i) for mask in masks for i in np.unique(mask)} == {0, 1, 255}

"""Centres of what is found in all pictures: how they are made, what a search with them finds, and where they go with a run."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import info_of, network_of, tiny
from PIL import Image
from sklearn.cluster import KMeans

from mupvss import load
from mupvss.data.sample import Dataset, Sample
from mupvss.errors import CheckpointError, UserError
from mupvss.files import read_json
from mupvss.methods import find_method
from mupvss.model.checkpoint import load_tensors
from mupvss.predict.load import load_classifier
from mupvss.predict.predictor import Predictor
from mupvss.predict.run import FinishedRun
from mupvss.search import centres as c
from mupvss.search import maps as m
from mupvss.search.seeds import read_seeds
from mupvss.search.spatial_search import centres_map
from mupvss.stages.run import run_one
from mupvss.stages.run_folder import Run

TOGETHER, ALONE = "centres_and_cam_refined", "attended_centres_refined"
CHANGES = {"search.kinds": [TOGETHER, "search_refined"], "search.maps": TOGETHER}


def around(directions, count, noise=0.05, seed=0):
    """Unit vectors, `count` around each of the directions."""
    generator = torch.Generator().manual_seed(seed)
    rows = directions.repeat_interleave(count, 0)
    return F.normalize(rows + noise * torch.randn(rows.shape, generator=generator), dim=-1)


def test_clusters_are_those_of_another_implementation():
    rows = around(torch.eye(8)[:5], 40)
    mine = c.clustered([rows[:90], rows[90:]], 5, 8, torch.Generator().manual_seed(3))
    theirs = F.normalize(torch.from_numpy(KMeans(5, n_init=5, random_state=0).fit(rows.numpy()).cluster_centers_), dim=-1)
    nearest = (mine @ theirs.T).max(1)
    assert sorted(nearest.indices.tolist()) == list(range(5))
    assert nearest.values.min() > 1 - 1e-4


def test_fewer_vectors_than_centres_and_none():
    generator = torch.Generator().manual_seed(0)
    two = torch.eye(4)[:2].repeat(3, 1)
    found = c.clustered([two], 5, 4, generator)
    assert {tuple(row) for row in found.tolist()} == {tuple(row) for row in torch.eye(4)[:2].tolist()}
    assert c.clustered([], 3, 4, generator).equal(torch.zeros(3, 4))
    assert c.clustered([torch.zeros(0, 4)], 3, 4, generator).equal(torch.zeros(3, 4))


def seen_pictures(classes, per_class=6, noise=0.05):
    """Pictures of 8 patches: four of their class, in the direction of its number, and four of the ground, in the last one. The
    map finds the class, but for one patch of the ground that it takes for it."""
    axes = torch.eye(classes + 1)
    pictures = []
    for number in range(classes * per_class):
        own = number % classes
        patches = torch.cat((around(axes[own : own + 1], 4, noise, number), around(axes[-1:], 4, noise, 100 + number)))
        maps = torch.tensor([[0.9, 1.0, 0.8, 0.9, 0.7, 0.0, 0.1, 0.0]])
        pictures.append(c.Seen([own], patches.half(), maps))
    return pictures


def test_centres_tell_what_was_found_from_what_was_not():
    known = c.gather(seen_pictures(3), 3, 4)
    assert known.found.shape == (3, 4, 4)
    assert known.other.shape == (3, 8, 4)
    patches = torch.eye(4).unsqueeze(0)
    found = centres_map(patches, known.found, known.other)[0]
    for own in range(3):
        assert found[own, own] > 0.9
        assert found[own, -1] < 0.6, "the ground, of which each map wrongly has a patch"
    assert 0 <= found.min() <= found.max() <= 1
    # Of as many centres of either sort in the same places, nothing can be told.
    even = torch.eye(4)[:2].unsqueeze(0)
    torch.testing.assert_close(centres_map(patches, even, even.repeat(1, 2, 1)), torch.full((1, 1, 4), 0.5))


def test_a_class_without_centres_is_searched_with_its_prototypes():
    known = c.gather(seen_pictures(3), 5, 2)  # no picture has classes 3 and 4
    assert m.usable_centres(known.found, known.other).tolist() == [True, True, True, False, False]
    torch.manual_seed(0)
    network = network_of(classes=5).eval()
    width = network.backbone.width
    wide = [F.pad(part, (0, width - part.shape[-1])) for part in known]
    network.remember(*wide)
    with torch.no_grad():
        features = network(torch.randn(1, 3, 32, 32))
    own = find_method("mupvss").search()
    found, prototypes = m.centres(features, None, own), m.search(features, None, own)
    assert torch.equal(found[:, 3:], prototypes[:, 3:])
    torch.testing.assert_close(found[:, :3], centres_map(features.patches, wide[0][:3], wide[1][:3]))
    assert c.gather([], 5, 2).found.shape[:2] == (5, 2), "no picture at all"


def test_the_pictures_that_are_gathered():
    """Every class has its share, a rare one all that it has; a picture is there once, in the order of the data set."""
    samples = [
        Sample(f"{i:05d}", "", frozenset({"often"} | ({"rare"} if i in (7, 2990) else set())), lambda: Image.new("RGB", (8, 8)))
        for i in range(3000)
    ]
    samples[5] = dataclasses.replace(samples[5], tags=frozenset())
    names = [sample.name for sample in c.pictures_of_classes(Dataset(("often", "rare"), samples))]
    assert names == sorted(set(names))
    assert {"00007", "02990"} <= set(names)
    assert "00005" not in names
    assert 1000 <= len(names) <= 1002


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = Run(tiny(CHANGES), tmp_path_factory.mktemp("centres") / "run")
    for stage in ("train", "seeds"):
        run_one(made, stage)
    return made


@pytest.mark.slow
def test_a_run_with_centres(run):
    """Its maps are those of its predictor, and of what is shared and exported from it."""
    kinds = {path.name for path in (run.out / "seeds" / "maps").iterdir()}
    assert kinds == {TOGETHER, ALONE, "attended_cam_refined", "search_refined"}
    tensors, _ = load_tensors(FinishedRun(run.out).centres)
    lengths = tensors["found"].norm(dim=-1)
    assert lengths.shape[1] == 4
    assert all(length == pytest.approx(1, abs=1e-4) or length == 0 for length in lengths.flatten().tolist())
    predictor = load(run.out, device="cpu", classifier=True)
    assert (predictor.kind, predictor.threshold) == (TOGETHER, read_json(run.out / "seeds" / "metrics.json")["threshold"])
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
    shared = run.out.parent / "shared"
    predictor.save_pretrained(shared)
    again = load(shared, device="cpu")
    expected, found = (p.search(picture, [0, 1], [TOGETHER, ALONE]) for p in (predictor, again))
    for kind in (TOGETHER, ALONE):
        assert expected[kind].maps.max() > 0
        np.testing.assert_array_equal(expected[kind].maps, found[kind].maps)
    own = predictor.search(picture, [0, 1], ["attended_search_refined"])["attended_search_refined"]
    assert np.abs(expected[ALONE].maps - own.maps).max() > 0.01


@pytest.mark.slow
def test_a_stage_that_stopped_gathers_nothing_again(run, tmp_path, monkeypatch):
    again = Run(run.config, tmp_path / "run")
    shutil.copytree(run.out, again.out)
    removed = next((again.out / "seeds" / "maps" / TOGETHER).iterdir())
    before = read_seeds(removed)
    removed.unlink()
    (again.out / "seeds" / "metrics.json").unlink()
    monkeypatch.setattr("mupvss.stages.seeds.gather", None)
    run_one(again, "seeds")
    np.testing.assert_array_equal(read_seeds(removed).maps, before.maps)


@pytest.mark.slow
def test_what_an_earlier_network_has_left_is_not_used(run, tmp_path, capsys):
    """Trained again and not searched again: its centres and its threshold say nothing about the new network."""
    again = Run(run.config.model_copy(update={"seed": 1}), tmp_path / "run")
    shutil.copytree(run.out, again.out)
    assert FinishedRun(again.out).is_current("seeds")
    run_one(again, "train")
    found = FinishedRun(again.out)
    assert (found.is_current("seeds"), found.centres) == (False, None)
    assert found.threshold is not None, "that of the maps that are there"
    predictor = load(again.out, device="cpu", classifier=True)
    assert predictor.threshold is None
    assert "whose threshold and centres are not used" in capsys.readouterr().err
    with pytest.raises(UserError, match="run 'mupvss seeds'"):
        predictor(Image.new("RGB", (48, 64)), [predictor.classes[0]])
    run_one(again, "seeds")
    assert load(again.out, device="cpu", classifier=True).threshold is not None


@pytest.mark.slow
def test_centres_of_another_network_are_refused(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run.out, folder)
    path = FinishedRun(folder).centres
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"centres\.safetensors"):
        load_classifier(folder)
    torch.manual_seed(0)
    network = network_of(classes=2)
    other = Predictor(network, info_of(("a", "b")), device="cpu")
    with pytest.raises(CheckpointError, match="centres of another network"):
        other.remember(FinishedRun(run.out).centres)
    with pytest.raises(UserError, match="give the folder of the run"):
        other.search(Image.new("RGB", (32, 32)), [0], [ALONE])

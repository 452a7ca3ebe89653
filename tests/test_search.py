"""Search maps, affinity, several scales at once, seeds on disk, and the threshold without masks."""

from __future__ import annotations

import dataclasses
import html
import itertools
import json
import shutil

import numpy as np
import pytest
import torch
from helpers import info_of, knowing, network_of, tiny
from PIL import Image

from mupvss.errors import DataError, UserError
from mupvss.evaluation.sweep import levels
from mupvss.methods import find_method
from mupvss.methods.mupvss import MupvssSearch
from mupvss.model.features import Features
from mupvss.ops import COMPETITION
from mupvss.options import CNNConfig, PEMConfig, SearchConfig
from mupvss.predict.predictor import Predictor
from mupvss.search import maps
from mupvss.search.affinity import affinity, refine, refine_by_pixels
from mupvss.search.maps import chosen_kind, witnesses
from mupvss.search.multiscale import canvas_size, cell_size, put_together, search_maps, whole_picture, windows
from mupvss.search.seeds import Seeds, read_seeds, write_seeds
from mupvss.search.spatial_search import competition_map, prototype_map
from mupvss.search.threshold import best_kappa, choose, described, disagreements, otsu, three_groups
from mupvss.stages.run import run_one
from mupvss.stages.run_folder import Run, pictures_of
from mupvss.stages.seeds import SEEDS

PLAIN = SearchConfig(scales=(1.0,), precision="fp32")
CNN = CNNConfig(backbone="resnet38", channels=1 / 32)


def searched(network, picture, classes, kinds, config=PLAIN, method="mupvss", **own):
    """As a predictor would. own: the method's options of its search."""
    found = find_method(method)
    settings = (found.offered(), config, found.search(**own), 8, 32, found.shared)
    return search_maps(network, picture, classes, kinds, *settings)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return knowing(network_of(pem=PEMConfig(blocks="late")).eval())


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (45, 61, 3), np.uint8))


@pytest.mark.parametrize(("size", "tile"), [((64, 48), 16), ((40, 200), 24), ((8, 8), 32), ((104, 16), 8), ((72, 72), 3)])
def test_tiles_cover_a_picture_and_overlap(size, tile):
    boxes, side = windows(size, tile, 8), max(8, tile // 8 * 8)
    covered = np.zeros((size[1] // 8, size[0] // 8), int)
    for left, top, right, bottom in boxes:
        assert (right - left, bottom - top) == (min(side, size[0]), min(side, size[1]))
        covered[top // 8 : bottom // 8, left // 8 : right // 8] += 1
    assert covered.min() >= 1
    for axis in (0, 1):
        starts = sorted({box[axis] for box in boxes})
        assert all(0 < b - a <= max(8, side * 3 // 4) for a, b in itertools.pairwise(starts))
    assert windows(size, 0, 8) == [(0, 0, *size)]
    # What is the same everywhere stays so, and a tile's middle counts more than its rim.
    parts = [torch.ones(2, (bottom - top) // 8, (right - left) // 8) for left, top, right, bottom in boxes]
    np.testing.assert_allclose(put_together(parts, boxes, 8), np.ones((2, *covered.shape)), rtol=1e-6)


class Local(torch.nn.Module):
    """A network whose patches see nothing but themselves."""

    def __init__(self):
        super().__init__()
        self.none = torch.nn.Parameter(torch.zeros(()))
        self.largest = 0

    def forward(self, images, need_attention=False):
        small = torch.nn.functional.avg_pool2d(images, 8)
        self.largest = max(self.largest, small[0, 0].numel())
        patches = small.flatten(2).transpose(1, 2)
        logits = patches[..., :2].transpose(1, 2) + 3
        return Features(tuple(small.shape[2:]), patches, logits, logits.mean(-1))


def test_what_patches_show_by_themselves_is_the_same_in_tiles():
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 255, (88, 120, 3), np.uint8))
    config, network = PLAIN.model_copy(update={"scales": (1.0, 0.5), "size": 100}), Local()
    whole = searched(network, picture, [0, 1], ["cam"], config, "vit-cam")["cam"]
    assert network.largest > 100
    network.largest = 0
    tiled = searched(network, picture, [0, 1], ["cam"], config.model_copy(update={"tile": 40}), "vit-cam")["cam"]
    assert network.largest == 25, "a tile has more patches than it should"
    torch.testing.assert_close(tiled, whole)


def test_a_tile_larger_than_the_picture_changes_nothing(network, picture):
    kinds = ["attended_search_refined", "search", "attended_cam_refined"]
    whole = searched(network, picture, [0, 2], kinds)
    tiled = searched(network, picture, [0, 2], kinds, PLAIN.model_copy(update={"tile": 64}))
    assert all(torch.equal(whole[kind], tiled[kind]) for kind in kinds)
    assert not torch.equal(
        searched(network, picture, [0, 2], kinds, PLAIN.model_copy(update={"tile": 16}))["search"], whole["search"]
    )


def test_large_pictures_keep_their_detail_in_tiles():
    """Searched whole, more than 640,000 pixels are reduced first."""
    picture = Image.fromarray(np.random.default_rng(3).integers(0, 255, (900, 1200, 3), np.uint8))
    network = Local()
    for tile, most in ((0, 8000), (160, 400)):
        network.largest = 0
        config = PLAIN.model_copy(update={"size": 1000, "tile": tile, "canvas_stride": 16})
        Predictor(network, info_of(("a", "b"), "vit-cam"), config, device="cpu").search(picture, [0], ["cam"])
        assert network.largest >= most if not tile else network.largest == most
    assert network.largest == 400


def test_prototype_map_in_loops():
    patches, prototypes = torch.randn(1, 5, 4), torch.randn(1, 2, 4)
    bias = torch.tensor([0.5, 2.0])
    found = prototype_map(patches, prototypes, 7.0, -bias)[0]
    for c in range(2):
        cosines = [torch.cosine_similarity(patches[0, i], prototypes[0, c], dim=0).item() for i in range(5)]
        for i in range(5):
            assert found[c, i].item() == pytest.approx(max(0, 7 * cosines[i] - bias[c].item()), abs=1e-5)


def test_competition_in_loops():
    generator = torch.Generator().manual_seed(1)
    patches, every = torch.randn(2, 5, 8, generator=generator), torch.randn(2, 3, 8, generator=generator)
    found = competition_map(patches, every[:, [2, 0]], every)
    for b in range(2):
        unit = [v / v.norm() for v in every[b]]
        mean = (unit[0] + unit[1] + unit[2]) / 3
        for n in range(5):
            token = patches[b, n] / patches[b, n].norm()
            logits = [COMPETITION * torch.dot((u - mean) / (u - mean).norm(), token) for u in unit]
            shares = torch.stack(logits).softmax(0)
            torch.testing.assert_close(found[b, :, n], shares[[2, 0]])
    alone = competition_map(patches, every[:, :1], every[:, :1])
    torch.testing.assert_close(alone, torch.ones(2, 1, 5))


def test_all_classes_compete_for_a_patch(network, picture):
    """Whichever of them are searched for; and a class alone competes with those that the picture is not tagged with."""
    alone = searched(network, picture, [1], ["search"], competition="alone")["search"]
    both = searched(network, picture, [0, 1], ["search"], competition="alone")["search"]
    torch.testing.assert_close(both[1:], alone)
    plain, times = (searched(network, picture, [1], ["search"], competition=c)["search"] for c in ("none", "times"))
    assert not torch.allclose(plain, times)
    assert not torch.allclose(alone, times)


@pytest.mark.parametrize("kind", ["patch", "attention", "both"])
def test_affinity_averages(kind):
    patches, attention = torch.randn(2, 6, 4), torch.rand(2, 6, 6)
    operator = affinity(kind, patches, attention, 4.0)
    torch.testing.assert_close(operator.sum(-1), torch.ones(2, 6))
    assert (operator >= 0).all()
    torch.testing.assert_close(refine(torch.ones(2, 3, 6), [operator, operator]), torch.ones(2, 3, 6))
    maps = torch.rand(2, 3, 6)
    expected = sum(operator[1, 4, j] * maps[1, 2, j] for j in range(6))
    assert refine(maps, [operator])[1, 2, 4].item() == pytest.approx(expected.item(), abs=1e-6)


def test_pixel_affinity_in_loops_and_along_an_edge():
    image, maps = torch.rand(3, 6, 7), torch.rand(2, 6, 7)
    found = refine_by_pixels(maps, image, 1, (1, 3))
    y, x = 2, 5
    values, logits = [], []
    around = [
        (min(max(y + dy, 0), 5), min(max(x + dx, 0), 6)) for d in (1, 3) for dy in (-d, 0, d) for dx in (-d, 0, d) if dy or dx
    ]
    colours = torch.stack([image[:, a, b] for a, b in around] + [image[:, y, x]])
    for a, b in around:
        unlike = 10 * (image[:, a, b] - image[:, y, x]).abs() / (colours.std(0) + 1e-5)
        logits.append(-unlike.mean())
        values.append(maps[:, a, b])
    expected = (torch.stack(logits).softmax(0).unsqueeze(1) * torch.stack(values)).sum(0)
    torch.testing.assert_close(found[:, y, x], expected)
    two = torch.zeros(3, 8, 8)
    two[:, :, 4:] = 1
    spot = torch.zeros(1, 8, 8)
    spot[0, 4, 1] = 1
    spread = refine_by_pixels(spot, two, 20, (1, 2))[0]
    assert spread[:, :4].min() > 20 * spread[:, 4:].max()  # it fills its own side and stays there


def test_affinity_without_attention_says_so():
    with pytest.raises(ValueError, match="need_attention"):
        affinity("attention", torch.randn(1, 2, 3), None, 1.0)


NETWORKS = {
    "mupvss": {},
    "mctformer": {"attention_skip": 0.0},
    "vit-cam": {},
    "cnn-cam": {"model": CNN},
    "recam": {"model": CNN},
}


@pytest.mark.parametrize("method", NETWORKS)
def test_every_kind_of_map(picture, method):
    torch.manual_seed(0)
    network, offered = knowing(network_of(method, **NETWORKS[method]).eval()), find_method(method).offered()
    config = PLAIN.model_copy(update={"scales": (1.0, 0.5)})
    found = searched(network, picture, [2, 0], list(offered), config, method)
    assert list(found) == list(offered)
    for kind, made in found.items():
        assert made.shape == (2, *canvas_size(61, 45, 4))
        assert made.min() >= 0
        assert made.max() < 1 + 1e-5
        if offered[kind].joins is None:
            assert all(top == pytest.approx(1, abs=1e-5) or top == 0 for top in made.amax((1, 2)).tolist())
    assert found[next(iter(offered))].max() > 0


def test_names_of_maps_follow_the_rule():
    """What is looked for, whether times attention, and what is done with it; one name is one map in all methods."""
    seen = {}
    for method in NETWORKS:
        for name, entry in find_method(method).offered().items():
            assert seen.setdefault(name, (entry.make, entry.refined, entry.joins)) == (entry.make, entry.refined, entry.joins)
            assert name.endswith("_refined") == (entry.refined or entry.joins is not None)
            assert entry.title


def test_search_and_classifier_together(network, picture):
    """Their geometric mean, made of finished maps, whether or not those are asked for too."""
    together, kinds = "search_and_cam_refined", list(find_method("mupvss").offered())
    made = [searched(network, picture, [0, 1], asked) for asked in ([together], kinds)]
    assert list(made[0]) == [together]
    expected = (made[1]["attended_search_refined"] * made[1]["attended_cam_refined"]).sqrt()
    assert expected.max() > 0
    for found in made:
        torch.testing.assert_close(found[together], expected)


def test_a_cnn_is_refined_without_attention(picture):
    """Its only affinity is that between patches, whatever the config asks for."""
    torch.manual_seed(0)
    network = network_of("cnn-cam", model=CNN).eval()
    configs = [PLAIN.model_copy(update={"affinity": kinds, "pixel_steps": 0}) for kinds in (("attention",), ("patch",), ())]
    attention, patch, none = (searched(network, picture, [1], ["cam_refined"], c, "cnn-cam")["cam_refined"] for c in configs)
    torch.testing.assert_close(attention, patch)
    assert not torch.allclose(none, patch)


def test_the_kind_that_becomes_masks():
    offered = find_method("mctformer").offered()
    assert chosen_kind(offered, "own") == "attended_cam_spread"
    assert chosen_kind(offered, "cam") == "cam"
    with pytest.raises(UserError, match="offers own, attended_cam_spread"):
        chosen_kind(offered, "search")


def test_prototype_maps_use_neither_the_classifier_nor_class_attention(network, picture):
    """Fixed point: the figure `search_refined_oracle` is of the search and affinity alone."""
    features = network(torch.randn(1, 3, 32, 32), need_attention=True)
    own = MupvssSearch()
    blinded = dataclasses.replace(
        features,
        patch_logits=torch.randn_like(features.patch_logits),
        patch_score=torch.randn_like(features.patch_score),
        class_attention=torch.rand_like(features.class_attention),
    )
    torch.testing.assert_close(maps.search(blinded, PLAIN, own), maps.search(features, PLAIN, own))
    assert not torch.allclose(maps.attended_search(blinded, PLAIN, own), maps.attended_search(features, PLAIN, own))
    moved = dataclasses.replace(features, prototypes=torch.randn_like(features.prototypes))
    torch.testing.assert_close(maps.root_attention(moved, PLAIN, own), maps.root_attention(features, PLAIN, own))
    assert not torch.allclose(maps.attended_search(moved, PLAIN, own), maps.attended_search(features, PLAIN, own))


def test_mirrored_picture_gives_mirrored_maps(network, picture):
    picture = picture.resize((64, 48))  # whole patches: no resampling, whose rounding an untrained network's maps enlarge
    mirrored = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    kinds = ["cam", "attention"]
    straight, back = (searched(network, p, [0, 1, 2], kinds, global_prototypes=False) for p in (picture, mirrored))
    for kind in kinds:
        torch.testing.assert_close(straight[kind], back[kind].flip(-1), atol=2e-3, rtol=0)


def test_no_tag_gives_no_map(network, picture):
    assert searched(network, picture, [], ["search"])["search"].shape == (0, 12, 16)


def test_global_prototypes_come_from_the_training_size(network, picture):
    found = whole_picture(network, picture, PLAIN, MupvssSearch(), 8, 32, find_method("mupvss").shared)["prototypes"]
    assert found.shape == (1, 3, 128)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(1, 3))


@pytest.mark.parametrize("side", [40, 80, 160])
def test_a_size_makes_the_scales_independent_of_the_picture(network, picture, side):
    seen = []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape[-2:])))
    config = SearchConfig(scales=(0.5, 1.0), size=80, precision="fp32")
    found = searched(network, picture.resize((side, side)), [1], ["search"], config, global_prototypes=False)
    assert seen == [(32, 32), (40, 40), (80, 80)], "the training size for the prototypes, then the two scales"
    assert found["search"].shape == (1, 20, 20), "cells of the working size"


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (8, 8)])
def test_pictures_of_any_size(network, size):
    found = searched(network, Image.new("RGB", size, (9, 90, 200)), [1], list(find_method("mupvss").offered()))
    assert all(torch.isfinite(m).all() for m in found.values())


def test_seeds_come_back_as_written(tmp_path):
    maps = np.random.default_rng(0).random((2, *canvas_size(61, 45, 4))).astype(np.float16)
    path = tmp_path / "a" / "x.npz"
    write_seeds(path, Seeds(np.array([3, 1]), maps, (45, 61), 4))
    back = read_seeds(path)
    np.testing.assert_array_equal(back.maps, maps)
    assert back.ids.tolist() == [3, 1]
    assert back.labels(0.4).shape == (45, 61)
    assert set(np.unique(back.labels(0.4))) <= {0, 1, 3}
    assert [p.name for p in path.parent.iterdir()] == ["x.npz"]
    with np.load(path, allow_pickle=False) as file:
        assert sorted(file) == ["ids", "maps", "size", "stride"]
        assert file["maps"].dtype == np.float16


def test_seeds_without_a_tag_are_background(tmp_path):
    write_seeds(tmp_path / "x.npz", Seeds(np.array([]), np.zeros((0, 12, 16)), (45, 61), 4))
    assert not read_seeds(tmp_path / "x.npz").labels(0.0).any()


def test_bad_seed_files(tmp_path):
    path = tmp_path / "x.npz"
    with pytest.raises(DataError, match="no such seeds"):
        read_seeds(path)
    path.write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(DataError, match="not a readable seed file"):
        read_seeds(path)
    write_seeds(path, Seeds(np.array([1]), np.zeros((1, 5, 5)), (45, 61), 4))
    with pytest.raises(DataError, match="45x61"):
        read_seeds(path)
    np.savez(path, ids=np.array([object()]), maps=np.zeros((1, 12, 16)), size=np.array([45, 61]), stride=4)
    with pytest.raises(DataError):
        read_seeds(path)


def test_small_pictures_get_finer_cells_and_large_ones_no_more_of_them():
    sized, plain = SearchConfig(size=432), SearchConfig()
    assert [cell_size((w, h), sized) for w, h in ((500, 375), (200, 200), (4000, 3000), (40, 40))] == [4, 2, 32, 1]
    assert [cell_size((w, h), plain) for w, h in ((500, 375), (200, 200), (4000, 3000))] == [4, 4, 4]
    for width, height in ((500, 375), (333, 500), (200, 200), (1600, 1200), (4000, 3000)):
        rows, columns = canvas_size(width, height, cell_size((width, height), sized))
        assert 8000 < rows * columns < 16000


def test_the_cells_of_a_search_and_of_its_file_are_the_same(network, tmp_path):
    predictor = Predictor(
        network, info_of(("cat", "dog", "hen")), SearchConfig(scales=(1.0,), size=64, canvas_stride=4), device="cpu"
    )
    for size, stride in (((40, 24), 2), ((128, 128), 8)):
        seeds = predictor.search(Image.effect_noise(size, 90).convert("RGB"), [0], ["cam"])["cam"]
        assert seeds.stride == stride
        write_seeds(tmp_path / "s.npz", seeds)  # which checks that maps, size and cells fit
        assert read_seeds(tmp_path / "s.npz").best()[0].shape == size[::-1]


def test_otsu_in_loops():
    counts = np.random.default_rng(0).integers(0, 50, 101)
    values = np.repeat(np.arange(101) / 100, counts)

    def between(k):
        low, high = values[values < k / 100 - 1e-9], values[values >= k / 100 - 1e-9]
        return 0 if not len(low) or not len(high) else len(low) * len(high) * (high.mean() - low.mean()) ** 2

    assert between(round(otsu(counts) * 100)) == pytest.approx(max(between(k) for k in range(1, 101)))
    assert otsu(np.zeros(101)) == 0.5


def histogram(values):
    return np.bincount(levels(values).ravel(), minlength=101)


def test_kappa_in_loops():
    rng = np.random.default_rng(1)
    truth = rng.random(4000) < 0.3
    one, other = (np.clip(truth * 0.5 + rng.normal(0.3, 0.15, 4000), 0, 1) for _ in range(2))

    def kappa(t):
        a, b = levels(one) >= t, levels(other) >= t
        observed, expected = (a == b).mean(), a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
        return (observed - expected) / (1 - expected)

    three = np.stack([histogram(part) for part in (one, other, np.minimum(one, other))])
    assert best_kappa(three) == pytest.approx(max(kappa(t) for t in range(5, 96)))
    assert best_kappa(np.stack([histogram(one)] * 3)) == pytest.approx(1)
    assert best_kappa(np.zeros((3, 101))) == 0
    assert best_kappa(np.stack([histogram(np.full(50, 0.7))] * 3)) == 0, "the same mask at every threshold"


def test_three_groups_are_those_of_scikit_learn():
    mixture = pytest.importorskip("sklearn.mixture", reason="of the extra doctor")
    rng = np.random.default_rng(0)
    groups = ((0.2, 0.08, 5000), (0.45, 0.1, 2000), (0.8, 0.07, 1500))
    values = np.concatenate([rng.normal(mean, width, count) for mean, width, count in groups]).clip(0, 1)
    counts = histogram(values)
    found = mixture.GaussianMixture(3, tol=1e-8, max_iter=2000, random_state=0).fit(
        np.repeat(np.arange(101) / 100, counts)[:, None]
    )
    highest = found.means_[:, 0].argmax()
    level = np.arange(45, 101) / 100
    expected = level[(found.predict_proba(level[:, None])[:, highest] > 0.5).argmax()]
    assert abs(three_groups(counts) - expected) < 0.0151
    two = np.zeros(101, int)
    two[[20, 80]] = 5, 7
    assert three_groups(two) == otsu(two)


def test_the_middle_of_two_rules():
    pictures = [histogram(np.concatenate([np.full(900, low), np.full(100, low + 0.4)])) for low in (0.0, 0.1, 0.5)]
    median = sorted(otsu(own) for own in pictures)[1]
    middle = (median + three_groups(sum(pictures))) / 2
    assert choose(np.array(pictures), "middle").threshold == pytest.approx(middle, abs=0.0051)
    assert choose(np.array(pictures), "otsu").threshold == otsu(sum(pictures))
    assert choose(np.array(pictures), "groups").threshold == three_groups(sum(pictures))
    for rule in ("otsu", "middle", "groups"):
        assert choose(np.zeros((0, 101), int), rule).threshold == 0.5


def test_a_choice_says_how_sure_it_is():
    def of(*pixels):
        counts = np.zeros(101, np.int64)
        counts[[0, 40, 50, 60, 90]] = pixels
        return counts

    counts = of(50, 10, 5, 10, 25)
    choice = described(counts, [0.5, 0.55], 0.5, "otsu")
    assert (choice.share, choice.less, choice.more) == pytest.approx((0.4, 0.05 / 0.4, 0.1 / 0.4))
    assert (choice.least, choice.most) == pytest.approx((0.35, 0.4))
    assert not list(choice.warnings())
    (unsure,) = described(of(60, 20, 5, 5, 10), [0.3, 0.5], 0.45, "middle").warnings()
    assert "20 to 40 % of the tagged pictures" in unsure
    assert "20 % at 0.45" in unsure
    assert 'data.background = "none"' in " ".join(described(of(30, 0, 0, 0, 70), [0.5], 0.5, "otsu").warnings())
    assert not list(described(of(30, 0, 0, 0, 70), [0.0], 0.0, "none").warnings())


def test_classes_that_search_and_classifier_see_apart_are_named():
    (said,) = disagreements({"cow": 0.29, "cat": 0.91, "hen": 0.1})
    assert "hen (0.10), cow (0.29)" in said
    assert "cat" not in said
    assert not list(disagreements({"cat": 0.91}))


def test_two_witnesses_need_a_search_and_a_classifier():
    offered = find_method("mupvss").offered()
    pair = ("attended_search_refined", "attended_cam_refined")
    for kind in ("search_and_cam_refined", *pair):
        assert witnesses(offered, kind) == pair
    for kind in ("centres_and_cam_refined", "attended_centres_refined"):
        assert witnesses(offered, kind) == ("attended_centres_refined", "attended_cam_refined")
    assert witnesses(offered, "attention") is None
    assert all(witnesses(find_method(name).offered(), kind) is None for name in ("vit-cam", "mctformer") for kind in ("cam",))


def test_how_sure_the_masks_are_is_written_and_said(tmp_path, capsys):
    together = "search_and_cam_refined"
    run = Run(tiny({"search.kinds": [together], "search.maps": together, "search.threshold": "middle"}), tmp_path)
    for stage in ("train", "seeds", "affinity", "masks", "report"):
        run_one(run, stage)
    seeds, masks = (json.loads((tmp_path / stage / "metrics.json").read_text()) for stage in ("seeds", "masks"))
    pair = ("attended_search_refined", "attended_cam_refined")
    assert {path.name for path in (tmp_path / "seeds" / "maps").iterdir()} == {together, *pair}
    assert seeds["threshold_rule"] == "middle"
    for figures, folder in ((seeds, tmp_path / "seeds" / "maps" / together), (masks, tmp_path / "masks" / "maps" / "walked")):
        found = [read_seeds(path) for path in sorted(folder.iterdir())]
        own = [histogram(entry.best()[0]) for entry in found if len(entry.ids)]
        assert figures["threshold"] == choose(np.array(own), "middle").threshold
    tags = {tag for sample in pictures_of(run, "seeds").samples for tag in sample.tags}
    assert set(seeds["agreement"]) == tags
    assert all(-1 <= kappa <= 1 for kappa in seeds["agreement"].values())
    assert seeds["warnings"], "after so short a training"
    said = " ".join(capsys.readouterr().err.split())
    page = html.unescape((tmp_path / "report" / "index.html").read_text())
    for text in seeds["warnings"]:
        assert " ".join(f"! {text}".split()) in said
        assert text in page


def test_another_threshold_searches_nothing_again(tmp_path, monkeypatch):
    config = {"search.kinds": ["search", "cam"], "search.maps": "search"}
    for stage in ("train", "seeds"):
        first = run_one(Run(tiny(config), tmp_path), stage)
    searched = []
    monkeypatch.setattr(Predictor, "search", lambda *given: searched.append(given))
    again = run_one(Run(tiny(config | {"search.threshold": "middle"}), tmp_path), "seeds")
    assert again["threshold_rule"] == "middle"
    run_one(Run(tiny(config | {"search.maps": "cam", "data.background": "none"}), tmp_path), "seeds")
    assert not searched
    assert first["miou_oracle"] == again["miou_oracle"]
    assert list((tmp_path / "seeds.earlier" / "maps").iterdir()), "what was set aside is complete"
    monkeypatch.setattr("mupvss.stages.seeds.SEEDS", dataclasses.replace(SEEDS, revision=99))
    with pytest.raises(Exception, match="object"):  # other maps under the same options
        run_one(Run(tiny(config | {"search.threshold": "groups"}), tmp_path), "seeds")
    monkeypatch.setattr("mupvss.stages.seeds.SEEDS", SEEDS)
    with pytest.raises(Exception, match="object"):  # there are no such maps yet, and the search is taken out
        run_one(Run(tiny(config | {"search.scales": [0.5]}), tmp_path), "seeds")
    assert searched


def test_maps_that_were_deleted_are_searched_again(tmp_path):
    config = {"search.kinds": ["search"], "search.maps": "search"}
    for stage in ("train", "seeds"):
        run_one(Run(tiny(config), tmp_path), stage)
    shutil.rmtree(tmp_path / "seeds" / "maps")
    run_one(Run(tiny(config | {"search.threshold": "middle"}), tmp_path), "seeds")
    assert len(list((tmp_path / "seeds" / "maps" / "search").iterdir())) == 6

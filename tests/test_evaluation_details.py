"""How sure a mIoU is, whether two differ, and where the errors are: against scipy, torchmetrics, scikit-learn, and by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import jaccard_score
from torchmetrics.functional.classification import multiclass_jaccard_index

from mupvss.cli.main import main
from mupvss.data.masks import write_palette_png
from mupvss.evaluation import details
from mupvss.evaluation.confusion import confusion_matrix, scores
from mupvss.evaluation.details import difference, interval, ious_by_size, miou_of, near_boundary, tally

K = 4


def pictures(count: int, noise: float, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Truth, and a prediction that is wrong on a share of the pixels which differs from picture to picture."""
    rng = np.random.default_rng(seed)
    truths = [rng.integers(0, K, (5, 6)).repeat(3, 0).repeat(3, 1).astype(np.uint8) for _ in range(count)]
    rng = np.random.default_rng([seed, round(1000 * noise)])
    predictions = []
    for truth in truths:
        wrong = rng.random(truth.shape) < noise * rng.random() * 2
        predictions.append(np.where(wrong, rng.integers(0, K, truth.shape), truth).astype(np.uint8))
    return truths, predictions


def tallies(truths, predictions):
    return np.stack([tally(confusion_matrix(p, t, K)) for p, t in zip(predictions, truths, strict=True)])


def test_miou_as_others_compute_it():
    truths, predictions = pictures(20, 0.3)
    found = tallies(truths, predictions)
    whole = scores(sum(confusion_matrix(p, t, K) for p, t in zip(predictions, truths, strict=True)))
    assert miou_of(found.sum(0)) == pytest.approx(whole.miou)
    truth, prediction = np.stack(truths).ravel(), np.stack(predictions).ravel()
    assert whole.miou == pytest.approx(100 * jaccard_score(truth, prediction, average="macro"))
    theirs = multiclass_jaccard_index(torch.from_numpy(prediction).long(), torch.from_numpy(truth).long(), K, "macro")
    assert whole.miou == pytest.approx(100 * float(theirs), abs=1e-4)
    assert miou_of(np.zeros((3, K))) == 0


def test_intervals_as_scipy_computes_them():
    found = tallies(*pictures(40, 0.3))

    def statistic(places, axis):
        return miou_of(found[np.moveaxis(places, axis, -1)].sum(-3))

    rng = np.random.default_rng(1)
    theirs = stats.bootstrap((np.arange(40),), statistic, n_resamples=5000, method="percentile", rng=rng).confidence_interval
    own = interval(found)
    assert own.low == pytest.approx(theirs.low, abs=0.4)
    assert own.high == pytest.approx(theirs.high, abs=0.4)
    assert own.low < miou_of(found.sum(0)) < own.high
    assert interval(found) == own
    one = interval(found[:1])
    assert one.low == one.high  # one picture says nothing about others


def test_tests_as_scipy_computes_them():
    one, other = tallies(*pictures(30, 0.30)), tallies(*pictures(30, 0.33))

    def statistic(a, b, axis):
        return miou_of(np.where(a[..., None, None] < 30, one, other).sum(-3)) - miou_of(
            np.where(b[..., None, None] < 30, one, other).sum(-3)
        )

    found = difference(one, other)
    rng = np.random.default_rng(1)
    data = (np.arange(30), np.arange(30) + 30)
    theirs = stats.permutation_test(
        data,
        lambda a, b, axis=-1: statistic(a, b, axis),
        permutation_type="samples",
        n_resamples=4000,
        batch=50,
        vectorized=True,
        rng=rng,
    )
    assert found.points == pytest.approx(theirs.statistic)
    assert found.p == pytest.approx(theirs.pvalue, abs=0.04)
    assert found.p > 0.001
    assert found.interval.low < found.points < found.interval.high
    assert difference(one, one).p == 1
    much = difference(one, tallies(*pictures(30, 0.9)))
    assert much.points > 5
    assert much.p < 0.001
    assert much.interval.low > 0
    assert difference(other, one).points == pytest.approx(-found.points)


def test_chunks_change_nothing(monkeypatch):
    found = tallies(*pictures(10, 0.3))
    whole = interval(found), difference(found, found[::-1])
    monkeypatch.setattr(details, "CHUNK", 10**9)
    again = interval(found), difference(found, found[::-1])
    assert again[0].low == pytest.approx(whole[0].low, abs=0.5)
    assert again[1].points == whole[1].points


@pytest.mark.parametrize("width", [1, 2, 4])
def test_the_band_in_loops(width):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, (4, 5)).repeat(5, 0).repeat(5, 1).astype(np.uint8)
    found = near_boundary(truth, width)
    edge = np.zeros(truth.shape, bool)
    height, w = truth.shape
    for y in range(height):
        for x in range(w):
            for b, a in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= b < height and 0 <= a < w and truth[y, x] != truth[b, a]:
                    edge[y, x] = True
    for y in range(height):
        for x in range(w):
            around = edge[max(0, y - width + 1) : y + width, max(0, x - width + 1) : x + width]
            assert found[y, x] == around.any()


def test_the_boundary_lies_in_the_middle_of_a_rim():
    """VOC draws a rim of 255 around every object; a perfect prediction is perfect at the boundary too."""
    truth = np.zeros((20, 20), np.uint8)
    truth[:, 8:12], truth[:, 12:] = 255, 1
    found = near_boundary(truth, 4)
    assert not found[:, :6].any()
    assert found[:, 7].all()
    assert found[:, 12].all()
    assert not found[:, 14:].any()
    assert not near_boundary(np.zeros((5, 5), np.uint8)).any()
    assert not near_boundary(np.full((5, 5), 255, np.uint8)).any()


def test_sizes_by_hand():
    """One class fills 4 of 100 pixels and is half found, another fills half and is found."""
    truth = np.zeros((10, 10), np.uint8)
    truth[:5], truth[9, :4] = 1, 2
    prediction = truth.copy()
    prediction[9, :2] = 0
    sums, counts = np.zeros(3), np.zeros(3, np.int64)
    ious_by_size(confusion_matrix(prediction, truth, 3), sums, counts)
    assert sums.tolist() == [50, 0, 100]
    assert counts.tolist() == [1, 0, 1]


def test_what_the_command_says(tmp_path, capsys):
    for noise, name in ((0.3, "one"), (0.9, "two")):
        truths, predictions = pictures(12, noise)
        for i, (truth, prediction) in enumerate(zip(truths, predictions, strict=True)):
            write_palette_png(tmp_path / "truth" / f"{i}.png", truth)
            write_palette_png(tmp_path / name / f"{i}.png", prediction)
    words = ["evaluate", "--pred", str(tmp_path / "one"), "--truth", str(tmp_path / "truth"), "--num-classes", str(K)]
    assert main([*words, "--against", str(tmp_path / "two"), "--band", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    low, high = found["miou_interval"]
    assert low < found["miou"] < high
    assert 0 < found["miou_band"] < 100
    assert sum(group["regions"] for group in found["iou_by_size"]) > 12
    assert found["difference"]["points"] == pytest.approx(found["miou"] - found["difference"]["miou"])
    assert found["difference"]["p"] < 0.01
    assert main([*words, "--against", str(tmp_path / "two"), "--band", "2"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for text in ("95 % of the resamples", "within 2 pixels of a true boundary", "over 20 %", "random exchanges of the two"):
        assert text in said
    for i in range(12):
        write_palette_png(tmp_path / "truth" / f"{i}.png", np.zeros((15, 18), np.uint8))
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["miou_band"] is None  # there is no boundary
    assert main([*words, "--band", "0"]) == 1
    assert "at least one pixel" in capsys.readouterr().err

"""The one mIoU against an independent implementation, and the sweep against a loop over thresholds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix as peer_confusion
from sklearn.metrics import jaccard_score

from mupvss.cli.main import main
from mupvss.data.masks import voc_palette, write_palette_png
from mupvss.errors import DataError
from mupvss.evaluation.confusion import confusion_matrix, joint_counts, scores
from mupvss.evaluation.folders import score_folders
from mupvss.evaluation.sweep import BINS, best_threshold, matrix_at, threshold_histogram


def peer_scores(prediction, truth, classes):
    counted = truth != 255
    p, t = prediction[counted], truth[counted]
    present = sorted(set(p.tolist()) | set(t.tolist()))
    iou = dict(zip(present, jaccard_score(t, p, labels=present, average=None), strict=True))
    return {c: 100 * iou[c] for c in present}, peer_confusion(t, p, labels=range(classes))


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_peer_on_random_masks(seed):
    rng = np.random.default_rng(seed)
    truth = rng.choice([0, 1, 2, 4, 255], (37, 53)).astype(np.uint8)
    prediction = rng.choice([0, 1, 3, 4], (37, 53)).astype(np.uint8)
    iou, table = peer_scores(prediction, truth, 6)
    matrix = confusion_matrix(prediction, truth, 6)
    np.testing.assert_array_equal(matrix, table)
    found = scores(matrix)
    assert found.iou[5] is None  # absent from both
    assert [found.iou[c] for c in iou] == pytest.approx(list(iou.values()))
    assert found.miou == pytest.approx(np.mean(list(iou.values())))


def test_equals_the_peer_on_real_masks(shared):
    folder = shared / "voc-animals" / "VOC2012" / "SegmentationClassAug"
    names = sorted(path.stem for path in folder.glob("*.png"))[:12]
    truth = [np.array(Image.open(folder / f"{name}.png")) for name in names]
    # A prediction with errors of a real kind: the truth moved by a few pixels, void filled.
    prediction = [np.roll(np.where(mask == 255, 0, mask), 7, axis=(0, 1)) for mask in truth]
    flat = [np.concatenate([m.ravel() for m in masks]) for masks in (prediction, truth)]
    iou, table = peer_scores(*flat, 21)
    matrix = sum(confusion_matrix(p, t, 21) for p, t in zip(prediction, truth, strict=True))
    np.testing.assert_array_equal(matrix, table)
    assert scores(matrix).miou == pytest.approx(np.mean(list(iou.values())))


def test_counting_in_loops():
    rng = np.random.default_rng(0)
    for size, pixels in ((2, 1), (5, 7), (21, 5001)):
        truth = rng.choice([*range(size), 255], pixels).astype(np.uint8)
        prediction = rng.integers(0, size, pixels).astype(np.uint8)
        slow = np.zeros((size, size), np.int64)
        for t, p in zip(truth, prediction, strict=True):
            if t != 255:
                slow[t, p] += 1
        found, wrong = joint_counts(truth, prediction, size)
        np.testing.assert_array_equal(found, slow)
        assert wrong == -1
        prediction[truth == 255] = size  # does not count
        truth[-1], prediction[-1] = 0, size
        assert joint_counts(truth, prediction, size)[1] == pixels - 1


@pytest.mark.parametrize(("prediction", "truth", "message"), [
    ([0, 3], [0, 0], "the prediction has class id 3"), ([0, 0], [0, 4], "the truth has class id 4"),
    ([0, -1], [0, 0], "the prediction has class ids from -1"), ([0], [0, 0], "must be of one size"),
])  # fmt: skip
def test_ids_out_of_range(prediction, truth, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(np.array(prediction), np.array(truth), 3)


def test_precision_recall_and_errors_by_hand():
    found = scores(np.array([[6, 2], [1, 3]]))
    assert found.precision == pytest.approx([600 / 7, 60])
    assert found.recall == pytest.approx([75, 75])
    assert (found.false_positive, found.false_negative) == pytest.approx((200 / 12, 100 / 12))


def test_all_ignored_is_zero_not_nan():
    assert scores(confusion_matrix(np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8), 3)).miou == 0


def test_sweep_equals_a_loop_over_thresholds():
    rng = np.random.default_rng(0)
    value = rng.random((40, 50)).astype(np.float32)
    label, truth = rng.integers(1, 4, (40, 50)), rng.choice([0, 1, 2, 3, 255], (40, 50))
    histogram = threshold_histogram(value, label, truth, 4)
    for k in range(0, BINS + 1, 7):
        slow = confusion_matrix(np.where(value >= k / BINS, label, 0), truth, 4)
        np.testing.assert_array_equal(matrix_at(histogram, k), slow)
    threshold, best = best_threshold(histogram)
    assert best.miou == max(scores(matrix_at(histogram, k)).miou for k in range(BINS + 1))
    assert 0 <= threshold <= 1


def test_out_of_range_id_and_size_name_the_file(tmp_path):
    write_palette_png(tmp_path / "truth" / "x.png", np.zeros((4, 4), np.uint8))
    write_palette_png(tmp_path / "pred" / "x.png", np.full((4, 4), 9, np.uint8))
    with pytest.raises(DataError, match=r"x\.png.*class id 9"):
        score_folders(tmp_path / "pred", tmp_path / "truth", 3)
    write_palette_png(tmp_path / "pred" / "x.png", np.zeros((4, 5), np.uint8))
    with pytest.raises(DataError, match=r"x\.png.*one size"):
        score_folders(tmp_path / "pred", tmp_path / "truth", 3)


def test_masks_of_0_and_255_are_not_a_perfect_score(tmp_path):
    mask = np.zeros((4, 4), np.uint8)
    mask[:2] = 255
    write_palette_png(tmp_path / "truth" / "x.png", mask)
    write_palette_png(tmp_path / "pred" / "x.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(DataError, match=r"truth: no pixel is of any class, and 50 % are 255"):
        score_folders(tmp_path / "pred", tmp_path / "truth", 2)
    mask[0, 0] = 1
    write_palette_png(tmp_path / "truth" / "y.png", mask)
    write_palette_png(tmp_path / "pred" / "y.png", np.zeros((4, 4), np.uint8))
    assert score_folders(tmp_path / "pred", tmp_path / "truth", 2).matrix.sum() == 17, "one picture without the class is usual"


def test_command_prints_one_json_object(tmp_path, capsys):
    mask = np.zeros((4, 4), np.uint8)
    mask[:2] = 1
    write_palette_png(tmp_path / "truth" / "x.png", mask)
    write_palette_png(tmp_path / "truth" / "y.png", mask * 0)
    write_palette_png(tmp_path / "pred" / "x.png", mask)
    (tmp_path / "list.txt").write_text("x\n")
    arguments = ["--pred", str(tmp_path / "pred"), "--truth", str(tmp_path / "truth"), "--num-classes", "3"]
    assert main(["evaluate", *arguments, "--list", str(tmp_path / "list.txt"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["miou"] == 100
    assert found["iou"] == [100, 100, None]
    assert main(["evaluate", *arguments, "--json"]) == 1
    assert "y.png" in capsys.readouterr().err


def test_palette_is_vocs(tmp_path):
    assert voc_palette()[[0, 1, 2, 8, 15, 255]].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [64, 0, 0], [192, 128, 128], [224, 224, 192],
    ]  # fmt: skip
    write_palette_png(tmp_path / "x.png", np.array([[0, 7]], np.uint8))
    with Image.open(tmp_path / "x.png") as image:
        assert image.mode == "P"
        assert np.array(image).tolist() == [[0, 7]]

"""Scores of tags that mean what they say: the fit against scikit-learn, the measure by hand, and where a calibration is kept."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers import info_of, network_of, tiny
from PIL import Image
from sklearn.linear_model import LogisticRegression

from mupvss import load
from mupvss.predict.calibration import Calibration, calibration_of, crossed, fit, log_odds, measured, reliability, unsure
from mupvss.predict.onnx_file import export_onnx
from mupvss.predict.predictor import Predictor
from mupvss.stages.report import _reliability
from mupvss.stages.run import run_all
from mupvss.stages.run_folder import Run

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8))


def overconfident(count: int, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are surer than they should be, and tags that follow the true probabilities."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(-1, 1.5, (count, classes))
    present = rng.random((count, classes)) < 1 / (1 + np.exp(-odds))
    return 1 / (1 + np.exp(-(2.5 * odds + 1.5))), present


def test_the_fit_as_scikit_learn_makes_it():
    scores, present = overconfident(300)
    theirs = LogisticRegression(C=1e9, tol=1e-8).fit(log_odds(scores).reshape(-1, 1), present.ravel())
    own = fit(scores, present)
    assert own.factor == pytest.approx(float(theirs.coef_[0, 0]), rel=1e-3)
    assert own.offset == pytest.approx(float(theirs.intercept_[0]), rel=1e-2)


def test_scores_that_are_right_stay_and_the_others_become_right():
    scores, present = overconfident(2000)
    before, after = reliability(scores, present), reliability(crossed(scores, present), present)
    assert before.error > 8
    assert after.error < 3
    assert after.loss < before.loss
    right = Calibration(0.4, -0.6)(scores)  # undoes what `overconfident` did
    again = fit(right, present)
    assert again.factor == pytest.approx(1, abs=0.1)
    assert again.offset == pytest.approx(0, abs=0.1)


def test_halves_are_calibrated_by_each_other():
    scores, present = overconfident(40)
    found = crossed(scores, present)
    np.testing.assert_allclose(found[::2], fit(scores[1::2], present[1::2])(scores[::2]))
    np.testing.assert_allclose(found[1::2], fit(scores[::2], present[::2])(scores[1::2]))


def test_reliability_by_hand():
    found = reliability(np.array([[0.05, 0.95], [0.05, 0.95]]), np.array([[0, 1], [1, 1]]))
    assert found.bins == ((pytest.approx(0.05), 0.5, 2), (pytest.approx(0.95), 1.0, 2))
    assert found.error == pytest.approx(100 * (0.45 + 0.05) / 2)


def test_scores_without_a_single_error_do_not_run_away():
    scores = np.array([[0.9, 0.1]] * 30)
    found = fit(scores, scores > 0.5)
    assert np.isfinite((found.factor, found.offset)).all()
    assert found(np.array([0.0, 1.0])).tolist() == pytest.approx([0, 1], abs=1e-3)


def test_too_little_is_known():
    scores, present = overconfident(19)
    assert measured(scores, present) == {}
    scores, present = overconfident(30)
    assert measured(scores, np.zeros_like(present)) == {}
    assert measured(scores, present)["pictures"] == 30
    assert unsure({"a": 0.1, "b": 0.5, "c": 0.85}) == ("b",)


@pytest.mark.parametrize(
    "known", [None, 3, {"factor": "x", "offset": 1}, {"factor": -1, "offset": 0}, {"factor": np.nan, "offset": 0}]
)
def test_what_is_not_usable_is_left(known):
    assert calibration_of({"calibration": known}) is None
    assert calibration_of({}) is None


def test_it_changes_scores_and_travels_with_the_network(tmp_path):
    pytest.importorskip("onnxscript")
    predictor = Predictor(network_of(classes=2), info_of(("cat", "dog")), device="cpu")
    plain = predictor.scores(PICTURE)
    predictor.calibration = Calibration(0.5, -1.0)
    expected = Calibration(0.5, -1.0).of(plain)
    assert predictor.scores(PICTURE) == expected
    assert expected != plain
    predictor.save_pretrained(tmp_path / "m")
    export_onnx(predictor, tmp_path / "m.onnx")
    for place in ("m", "m.onnx"):
        again = load(tmp_path / place, "cpu")
        assert again.calibration == predictor.calibration
        assert again(PICTURE).scores == pytest.approx(expected, abs=1e-3)


@pytest.mark.slow
def test_a_run_tests_its_scores_on_further_pictures(tmp_path):
    changes = {"data.scenes.val": 24, "affinity.kind": "none", "search.kinds": ["attended_search_refined"], "baseline": False}
    run = Run(tiny(changes), tmp_path / "run")
    metrics = run_all(run)
    found = json.loads((run.folder("val") / "calibration.json").read_text())
    assert set(found) == {"segment", "train"}
    for name, one in found.items():
        assert one["pictures"] == 24
        assert metrics[f"val/{name}_calibration_error"] == [one["before"]["error"], one["after"]["error"]]
        loaded = load(run.out, "cpu", classifier=name == "train")
        assert loaded.calibration == calibration_of({"calibration": one})
    assert _reliability(run).count("<svg") == 2
    short = Run(tiny({**changes, "data.scenes.val": 6}), tmp_path / "short")
    run_all(short)
    assert json.loads((short.folder("val") / "calibration.json").read_text()) == {}
    assert load(short.out, "cpu").calibration is None
    assert "too few" in _reliability(short)

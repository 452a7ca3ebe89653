"""From whatever holds a trained network to its predictor."""

from __future__ import annotations

import json
from pathlib import Path

from mupvss.config.schema import SearchConfig
from mupvss.model.checkpoint import fitting, model_info
from mupvss.predict.hub import SETTINGS, read_settings
from mupvss.predict.predictor import Predictor
from mupvss.predict.run import FinishedRun
from mupvss.predict.runtimes import Runtime, load_runtime
from mupvss.predict.segmenter import SegmentationPredictor
from mupvss.segmentation.build import is_segmenter, segmenter_info


def load(
    run: str | Path, device: str = "auto", allow_urls: bool = False, runtime: Runtime = "auto", classifier: bool = False
) -> Predictor | SegmentationPredictor:
    """A finished run's folder, one that `save_pretrained` wrote, a model.safetensors, or an exported .onnx -> its predictor.

    A run with a segmentation network is answered by that; otherwise the classifier searches, with the run's settings and
    threshold. allow_urls: fetch pictures that are given by their web address. runtime: for .onnx files, onnxruntime or openvino.
    classifier: of a run, its classifier even where there is a segmentation network.
    """
    path = Path(run)
    predictor = _load(path, device, runtime, classifier)
    if classifier and isinstance(predictor, SegmentationPredictor):
        raise ValueError(f"{path}: a segmentation network, and a classifier is asked for; give the folder of a run that has one")
    predictor.allow_urls = allow_urls
    predictor.run = path if path.is_dir() else None
    return predictor


def _load(path: Path, device: str, runtime: Runtime, classifier: bool) -> Predictor | SegmentationPredictor:
    if path.suffix == ".onnx":
        return _load_onnx(path, runtime)
    if path.is_file():
        is_last = is_segmenter(path)
        return SegmentationPredictor.open(path, device=device) if is_last else Predictor.open(path, SearchConfig(), None, device)
    if (path / SETTINGS).is_file():
        name = read_settings(path)["mupvss"]
        shared = SegmentationPredictor if name == SegmentationPredictor.__name__ else Predictor
        return shared.from_pretrained(path, device=device)
    segmenter = FinishedRun(path).checkpoint("segment")
    if segmenter.is_file() and not classifier:
        return SegmentationPredictor.open(segmenter, device=device)
    return load_classifier(path, device)


def _load_onnx(path: Path, runtime: Runtime) -> Predictor | SegmentationPredictor:
    network, header = load_runtime(path, runtime)
    with fitting(path):
        if "segment" in header:
            return SegmentationPredictor(network, segmenter_info(header), device="cpu")
        search = SearchConfig.model_validate_json(json.dumps(header["search"]))
        return Predictor(network, model_info(header, path), search, header["threshold"], "cpu")


def load_classifier(run: Path, device: str = "auto") -> Predictor:
    """The search of a finished run's classifier, whether or not the run has a segmentation network too."""
    found = FinishedRun(run)
    search = found.config("seeds").search if (run / "seeds" / "config.toml").is_file() else SearchConfig()
    predictor = Predictor.open(found.checkpoint("train"), search, found.threshold, device)
    predictor.run = run
    return predictor

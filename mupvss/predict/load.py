"""Opens a trained network as a predictor, in whatever form it is stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mupvss.errors import UserError
from mupvss.methods.checkpoint import load_network, model_info, search_settings
from mupvss.model.checkpoint import fitting
from mupvss.predict.calibration import calibration_of
from mupvss.predict.hub import SETTINGS, read_settings
from mupvss.predict.predictor import Predictor
from mupvss.predict.run import FinishedRun
from mupvss.predict.runtimes import Runtime, load_runtime
from mupvss.predict.segmenter import SegmentationPredictor
from mupvss.runtime.log import console
from mupvss.segmentation.build import is_segmenter, segmenter_info


def load(
    run: str | Path, device: str = "auto", runtime: Runtime = "auto", classifier: bool = False
) -> Predictor | SegmentationPredictor:
    """Open a trained network.

    Args:
        run: Folder of a run, a folder that `save_pretrained` wrote, a model.safetensors, or an exported .onnx file.
        device: auto (a GPU if there is one), cpu, cuda, cuda:N or mps. Ignored for .onnx files, which run on the CPU.
        runtime: For .onnx files: onnxruntime, openvino, or auto for the one that is installed.
        classifier: Use a run's classifier and its search, even if the run has a segmentation network.

    Returns:
        The predictor. A run with a segmentation network is answered by that network; otherwise the classifier searches, with
        the settings and the threshold of the run.

    Raises:
        CheckpointError: There is no network at that place, or it cannot be read.
        UserError: `classifier` is asked for, but the file holds a segmentation network alone; or the device does not exist.
        MissingExtraError: The runtime is not installed.
    """
    path = Path(run)
    predictor = _load(path, device, runtime, classifier)
    if classifier and isinstance(predictor, SegmentationPredictor):
        raise UserError(
            f"{path}: this is a segmentation network, but a classifier was asked for; give the folder of a run that has one"
        )
    predictor.run = path if path.is_dir() else None
    return predictor


def stated(
    predictor: Predictor | SegmentationPredictor, weights: str | None, pictures: str | None = None
) -> Predictor | SegmentationPredictor:
    """The predictor with licences for those of its weights, and for its pictures, whose licence is not known. None: unchanged."""
    said = {origin: pictures if origin.part == "pictures" else weights for origin in predictor.origins}
    known = tuple(origin if origin.licence or not said[origin] else replace(origin, licence=said[origin]) for origin in said)
    predictor.info = replace(predictor.info, origins=known)
    return predictor


def _load(path: Path, device: str, runtime: Runtime, classifier: bool) -> Predictor | SegmentationPredictor:
    if path.suffix == ".onnx":
        return _load_onnx(path, runtime)
    if path.is_file():
        is_last = is_segmenter(path)
        return SegmentationPredictor.open(path, device=device) if is_last else Predictor.open(path, device=device)
    if (path / SETTINGS).is_file():
        name = read_settings(path)["mupvss"]
        shared = SegmentationPredictor if name == SegmentationPredictor.__name__ else Predictor
        return shared.from_pretrained(path, device=device)
    found = FinishedRun(path)
    segmenter = found.checkpoint("segment")
    if segmenter.is_file() and not classifier:
        predictor = SegmentationPredictor.open(segmenter, **found.test_settings, device=device)
        predictor.calibration = found.calibration("segment")
        return predictor
    return load_classifier(path, device)


def _load_onnx(path: Path, runtime: Runtime) -> Predictor | SegmentationPredictor:
    network, header = load_runtime(path, runtime)
    with fitting(path):
        predictor: Predictor | SegmentationPredictor
        if "segment" in header:
            predictor = SegmentationPredictor(network, segmenter_info(header), device="cpu")
        else:
            info = model_info(header, path)
            saved = {"search": header["search"], **({"options": header["searched_with"]} if "searched_with" in header else {})}
            predictor = Predictor(network, info, *search_settings(saved, info.method), header["threshold"], "cpu")
        predictor.calibration = calibration_of(header)
        return predictor


def load_classifier(run: Path, device: str = "auto") -> Predictor:
    """The classifier of a finished run with its search, even if the run also has a segmentation network."""
    found = FinishedRun(run)
    network, info = load_network(found.checkpoint("train"))
    search, options = found.search_settings or (None, None)
    threshold = found.threshold
    if not found.is_current("seeds"):
        threshold = None
        said = f"! {run}: trained again since 'mupvss seeds', whose threshold and centres are not used; run that again too"
        console.print(said, highlight=False, soft_wrap=True, markup=False)
    predictor = Predictor(network, info, search, options, threshold, device)
    if found.centres is not None:
        predictor.remember(found.centres)
    predictor.calibration = found.calibration("train")
    predictor.run = run
    return predictor

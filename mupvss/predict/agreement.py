"""`mupvss export`: writes a run's network, and compares the installed runtimes with PyTorch in one interleaved run: largest
difference, share of equal labels, speed."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mupvss.data.images import read_image
from mupvss.data.preprocess import normalise, resize_for_search
from mupvss.model.features import Features
from mupvss.predict.load import load
from mupvss.predict.onnx_file import export_onnx
from mupvss.predict.predictor import Predictor
from mupvss.predict.runtimes import Runtime
from mupvss.predict.segmenter import SegmentationPredictor
from mupvss.runtime.device import prepare

AnyPredictor = Predictor | SegmentationPredictor
SIZES = ((224, 224), (320, 240), (160, 352), (448, 336))
"""(width, height) to which pictures are resized; each is in a batch with its mirror."""


@dataclass(frozen=True)
class Agreement:
    runtime: str
    difference: float
    """Largest difference of the logits in float32, relative to their largest magnitude."""
    same: float
    """Share of positions in the logits' grid with the same most likely class."""
    speed: float
    """Speed relative to PyTorch in float32: PyTorch's seconds per second of the runtime."""


def compare_runtime(predictor: AnyPredictor, path: Path, runtime: Runtime, pictures: Sequence[Image.Image]) -> Agreement:
    """Compares one runtime with PyTorch. predictor: the one that was exported to `path`."""
    other = load(path, runtime=runtime)
    differences, sames, seconds = [], [], np.zeros(2)
    for picture in pictures:
        for size in SIZES:
            tensor = normalise(resize_for_search(picture.resize(size), 1.0, predictor.stride))
            images = torch.stack((tensor, tensor.flip(-1)))
            _logits(other, images)  # the first call at a size may compile
            (one, first), (two, second) = (_timed(p, images) for p in (predictor, other))
            seconds += (first, second)
            differences.append(float((one - two).abs().max() / one.abs().max()))
            sames.append(float((one.argmax(1) == two.argmax(1)).float().mean()))
    return Agreement(runtime, max(differences), float(np.mean(sames)), float(seconds[0] / seconds[1]))


@torch.no_grad()
def _logits(predictor: AnyPredictor, images: Tensor) -> Tensor:
    found = predictor.network(images)
    return (found.patch_logits if isinstance(found, Features) else found).float()


def _timed(predictor: AnyPredictor, images: Tensor) -> tuple[Tensor, float]:
    begin = time.perf_counter()
    return _logits(predictor, images), time.perf_counter() - begin


RUNTIMES: tuple[Runtime, ...] = ("onnxruntime", "openvino")
TOLERANCE = 1e-3
"""Relative difference of the logits above which an export has failed."""


def export_and_check(run: Path, out: Path, classifier: bool, pictures: Sequence[Path], int8: bool = False) -> int:
    """Writes OUT; -> 1 if a runtime's logits differ by more than TOLERANCE, else 0. int8: with 8-bit weights, which are meant to
    differ, so that 0 is returned."""
    predictor = load(run, "cpu", classifier=classifier)
    export_onnx(predictor, out, int8)
    console = Console()
    console.print(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)", highlight=False, soft_wrap=True)
    prepare(0, 0)
    shown = [read_image(path) for path in pictures] or [_noise()]
    found = [compare_runtime(predictor, out, runtime, shown) for runtime in RUNTIMES if importlib.util.find_spec(runtime)]
    table = Table("runtime", "largest difference", "same label", "times PyTorch's speed")
    for entry in found:
        table.add_row(entry.runtime, f"{entry.difference:.1e}", f"{100 * entry.same:.3f} %", f"{entry.speed:.2f}")
    console.print(table)
    if not found:
        console.print("neither ONNX Runtime nor OpenVINO is installed, so the file was not checked: pip install 'mupvss[onnx]'")
    return int(not int8 and any(not entry.difference <= TOLERANCE for entry in found))  # NaN fails too


def _noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8))

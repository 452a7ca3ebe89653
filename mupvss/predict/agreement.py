"""`mupvss export`: writes a run's network, and compares the runtimes that are installed with PyTorch: how far apart, how often
the same label, how much faster, in one interleaved run."""

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
"""(width, height) that pictures are brought to, each in a batch with its mirror."""


@dataclass(frozen=True)
class Agreement:
    runtime: str
    difference: float
    """Largest, of the logits in float32, against the largest magnitude there is."""
    same: float
    """Share of places (pixels of the logits' grid) with the same likeliest class."""
    speed: float
    """Seconds of PyTorch in float32 for one second of the runtime."""


def compare_runtime(predictor: AnyPredictor, path: Path, runtime: Runtime, pictures: Sequence[Image.Image]) -> Agreement:
    """predictor: what was exported to `path`."""
    other = load(path, runtime=runtime)
    differences, sames, seconds = [], [], np.zeros(2)
    for picture in pictures:
        for size in SIZES:
            tensor = normalise(resize_for_search(picture.resize(size), 1.0, predictor.stride))
            images = torch.stack((tensor, tensor.flip(-1)))
            _logits(other, images)  # a size's first call may compile
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
"""Relative difference of the logits from which an export counts as failed."""


def export_and_check(run: Path, out: Path, classifier: bool, pictures: Sequence[Path]) -> int:
    """-> OUT; 1 if a runtime's answers differ by more than TOLERANCE."""
    predictor = load(run, "cpu", classifier=classifier)
    export_onnx(predictor, out)
    console = Console()
    console.print(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)", highlight=False, soft_wrap=True)
    prepare(0, 0)
    shown = [read_image(path) for path in pictures] or [_noise()]
    found = [compare_runtime(predictor, out, runtime, shown) for runtime in RUNTIMES if importlib.util.find_spec(runtime)]
    table = Table("runtime", "largest difference", "same label", "times PyTorch's speed")
    for entry in found:
        table.add_row(entry.runtime, f"{entry.difference:.1e}", f"{100 * entry.same:.3f} %", f"{entry.speed:.2f}")
    console.print(table)
    return int(any(entry.difference > TOLERANCE for entry in found))


def _noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8))

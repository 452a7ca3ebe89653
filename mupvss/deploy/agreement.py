"""An exported network against PyTorch's: how far apart, how often the same label, how much faster, in one interleaved run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mupvss.data.preprocess import normalise, resize_for_search
from mupvss.deploy.runtimes import Runtime
from mupvss.model.outputs import Features
from mupvss.predictor import Predictor, load
from mupvss.segmentation.predictor import SegmentationPredictor

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

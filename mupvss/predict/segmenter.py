"""The segmentation network's half of the inference path: same call and same result as a classifier's, but no tags are needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from mupvss.crf import MAX_PIXELS, DenseCRF
from mupvss.data.preprocess import normalise, reduced, reduction, resize_for_search, working_scale
from mupvss.model.licences import Origin
from mupvss.ops import best_enlarged
from mupvss.predict.calibration import calibration_of, calibration_settings
from mupvss.predict.hub import SharedPredictor
from mupvss.predict.prediction import FullSize, PicturePredictor, Prediction
from mupvss.runtime.device import autocast, pick_device
from mupvss.segmentation.build import SegmenterInfo, load_segmenter, save_segmenter

NEVER = -1e4
"""Logit of the background where there is none. Infinity would become NaN at the picture's rim, where it is enlarged with a weight
of zero."""


class SegmentationPredictor(SharedPredictor, PicturePredictor):
    """The segmentation network, averaged over scales and mirror and refined by the dense CRF; no tags are needed."""

    def __init__(
        self,
        network: nn.Module,
        info: SegmenterInfo,
        scales: Sequence[float] | None = None,
        crf: str | None = None,
        device: str = "auto",
        flip: bool = True,
    ) -> None:
        """
        Args:
            network: Images (B, 3, H, W), normalised -> logits (B, C + 1, h, w), with an attribute `stride` in pixels.
            info: What the checkpoint says about the network: classes and settings.
            scales: Scales at test time, relative to `segment.size`. None: those of the checkpoint.
            crf: Dense-CRF preset, or none. None: that of the checkpoint.
            device: As for `load`.
            flip: Also use the mirrored picture.
        """
        self.info, self.device = info, pick_device(device)
        self.network = network.to(self.device).eval()
        self.stride = int(network.stride)  # type: ignore[arg-type]
        """Sides of the network's input are multiples of this, in pixels."""
        self.scales = tuple(info.segment.scales if scales is None else scales)
        self.crf = info.segment.crf if crf is None else crf
        self.flip = flip

    @classmethod
    def open(cls, checkpoint: Path, **options: Any) -> SegmentationPredictor:
        return cls(*load_segmenter(checkpoint), **options)

    def save_checkpoint(self, path: Path) -> None:
        save_segmenter(path, self.network, self.info)  # type: ignore[arg-type]

    def settings(self) -> dict[str, Any]:
        own = {"scales": list(self.scales), "crf": self.crf, "flip": self.flip}
        return own | calibration_settings(self.calibration)

    @classmethod
    def from_settings(cls, checkpoint: Path, settings: dict[str, Any], device: str) -> SegmentationPredictor:
        options = {key: settings[key] for key in ("scales", "crf", "flip")}
        found = cls.open(checkpoint, device=device, **options)
        found.calibration = calibration_of(settings)
        return found

    @property
    def classes(self) -> tuple[str, ...]:
        return self.info.classes

    @property
    def origins(self) -> tuple[Origin, ...]:
        return self.info.origins

    @torch.no_grad()
    def probabilities(self, image: Image.Image) -> np.ndarray:
        """
        Args:
            image: RGB picture.

        Returns:
            (C + 1, h, w) float32 in [0, 1], the background first: mean over scales and mirror, before the dense CRF. Zero for the
            background of a network that learned from pictures without one. h and w are the picture's size, or that of a reduced
            copy if it is very large.
        """
        small = reduced(image, reduction(image.size))
        size = (small.height, small.width)
        total = torch.zeros(len(self.classes) + 1, *size)
        worked = self.info.segment.size
        base = working_scale(small.size, worked) if worked else 1.0
        for scale in self.scales:
            tensor = normalise(resize_for_search(small, base * scale, self.stride)).unsqueeze(0)
            views = torch.cat((tensor, tensor.flip(-1))) if self.flip else tensor
            with autocast(self.device, self.info.segment.train.precision):
                logits = self.network(views.to(self.device))
            if not self.info.background:
                logits[:, 0] = NEVER
            large = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False).softmax(1)
            total += ((large[0] + large[1].flip(-1)) / 2 if self.flip else large[0]).cpu()
        return (total / len(self.scales)).numpy()

    def predict(self, picture: Image.Image, tags: Sequence[str] | None) -> Prediction:
        found = self.probabilities(picture)
        scores = self.calibrated(dict(zip(self.classes, (float(p.max()) for p in found[1:]), strict=True)))
        if tags is None:  # other classes could not win, and would cost time
            likely = np.unique(found.argmax(0))
            ids = likely[likely > 0]
        else:
            ids = np.array([i for i, name in enumerate(self.classes, 1) if name in tags], np.int64)
        first = 0 if self.info.background or not len(ids) else 1
        ids = np.array([0, *ids])[first:]
        refined = self._refine(picture, found[ids])
        size = (picture.height, picture.width)
        value, place = best_enlarged(torch.from_numpy(refined), size)
        names = tuple(self.classes[i - 1] for i in ids if i)
        labels = ids.astype(np.uint8)[place.numpy()]
        return Prediction(self.classes, labels, value.numpy(), names, scores, FullSize(names, refined[1 - first :], size))

    def _refine(self, picture: Image.Image, found: np.ndarray) -> np.ndarray:
        """Probabilities of some labels -> the same, refined along the picture's edges and summing to 1, at its size; of a very
        large picture at a reduced one."""
        picture = reduced(picture, reduction(picture.size, MAX_PIXELS))
        size = (picture.height, picture.width)
        if found.shape[1:] != size:
            found = F.interpolate(torch.from_numpy(found).unsqueeze(0), size=size, mode="bilinear")[0].numpy()
        if self.crf == "none" or len(found) == 1:
            return found / found.sum(0).clip(1e-8) if len(found) > 1 else np.ones_like(found)
        return DenseCRF(np.array(picture), self.crf)(found)

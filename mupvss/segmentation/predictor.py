"""The segmentation network's half of the inference path: same call, same answer as a classifier's, and no tags needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mupvss.crf import dense_crf
from mupvss.data.preprocess import normalise, resize_for_search
from mupvss.engine.device import autocast, pick_device
from mupvss.prediction import Prediction, as_picture, check_tags
from mupvss.segmentation.build import load_segmenter


class SegmentationPredictor:
    """Call it with a picture; tags, if given, rule out every other class."""

    def __init__(
        self,
        checkpoint: Path,
        scales: Sequence[float] | None = None,
        crf: str | None = None,
        device: str = "auto",
        flip: bool = True,
    ) -> None:
        network, self.info = load_segmenter(checkpoint)
        self.device = pick_device(device)
        self.network = network.to(self.device).eval()
        self.scales = tuple(self.info.segment.scales if scales is None else scales)
        self.crf = self.info.segment.crf if crf is None else crf
        self.flip = flip

    @property
    def classes(self) -> tuple[str, ...]:
        return self.info.classes

    @torch.no_grad()
    def probabilities(self, image: Image.Image) -> np.ndarray:
        """RGB picture -> (C + 1, H, W) float32, the background first: mean over scales and mirror, then the dense CRF."""
        total: Tensor | None = None
        for scale in self.scales:
            tensor = normalise(resize_for_search(image, scale, self.network.stride)).unsqueeze(0)
            views = torch.cat((tensor, tensor.flip(-1))) if self.flip else tensor
            with autocast(self.device, self.info.segment.train.precision):
                logits = self.network(views.to(self.device))
            size = (image.height, image.width)
            large = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False).softmax(1)
            merged = (large[:1] + large[1:].flip(-1)) / 2 if self.flip else large
            total = merged if total is None else total + merged
        assert total is not None
        found = (total[0] / len(self.scales)).cpu().numpy()
        return found if self.crf == "none" else self._crf(np.array(image), found)

    def _crf(self, image: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Only over the labels that are likeliest somewhere: the others could not win, and cost time."""
        present = np.union1d([0], np.unique(probabilities.argmax(0)))
        if len(present) == 1:
            return probabilities
        refined = np.zeros_like(probabilities)
        refined[present] = dense_crf(image, probabilities[present], self.crf)
        return refined

    def __call__(self, image: Image.Image | np.ndarray | str | Path, tags: Sequence[str] | None = None) -> Prediction:
        """As `Predictor.__call__`; without tags every class can be found."""
        picture = as_picture(image)
        found = self.probabilities(picture)
        scores = dict(zip(self.classes, (float(p.max()) for p in found[1:]), strict=True))
        if tags is not None:
            check_tags(tags, self.classes)
            allowed = [0, *(i for i, name in enumerate(self.classes, 1) if name in tags)]
            kept = np.zeros_like(found)
            kept[allowed] = found[allowed]
            found = kept
        labels = found.argmax(0).astype(np.uint8)
        present = tuple(name for i, name in enumerate(self.classes, 1) if (labels == i).any())
        return Prediction(self.classes, labels, found.max(0), tuple(tags) if tags is not None else present, scores)

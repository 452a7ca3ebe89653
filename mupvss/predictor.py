"""The one inference path: a trained network with its preprocessing, answering at the picture's own size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mupvss.config.load import load_config
from mupvss.config.schema import SearchConfig
from mupvss.data.preprocess import normalise, reduced, reduction, resize_for_search
from mupvss.engine.checkpoint import load_network
from mupvss.engine.device import autocast, pick_device
from mupvss.files import read_json
from mupvss.prediction import PicturePredictor, Prediction
from mupvss.search.maps import chosen_kind
from mupvss.search.multiscale import search_maps
from mupvss.search.seeds import Seeds
from mupvss.segmentation.build import is_segmenter
from mupvss.segmentation.predictor import SegmentationPredictor


class Predictor(PicturePredictor):
    """The classifier with its spatial search."""

    def __init__(self, checkpoint: Path, search: SearchConfig, threshold: float | None = None, device: str = "auto") -> None:
        self.network, self.info = load_network(checkpoint)
        self.device = pick_device(device)
        self.network.to(self.device).eval()
        self.config, self.threshold = search, threshold

    @property
    def kinds(self) -> tuple[str, ...]:
        """The maps that are made: `search.kinds`, or all that the network offers, its own first."""
        unknown = [kind for kind in self.config.kinds if kind not in self.network.kinds]
        if unknown:
            raise ValueError(f"search.kinds has '{unknown[0]}', and this network offers {', '.join(self.network.kinds)}")
        return self.config.kinds or self.network.kinds

    @property
    def kind(self) -> str:
        """The maps that become masks."""
        return chosen_kind(self.network.kinds, self.config.maps)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.info.classes

    def search(self, image: Image.Image, classes: Sequence[int], kinds: Sequence[str]) -> dict[str, Seeds]:
        """RGB picture, indices of classes from 0 -> Seeds per kind of map. Very large pictures are searched reduced, and the
        cells of their maps cover as many more pixels."""
        model, ids = self.info.model, np.array(classes, np.int16) + 1
        factor = reduction(image.size)
        small, size, stride = reduced(image, factor), (image.height, image.width), self.config.canvas_stride * factor
        maps = search_maps(self.network, small, classes, kinds, self.config, model.patch_size, model.image_size)
        return {kind: Seeds(ids, found.numpy(), size, stride) for kind, found in maps.items()}

    @torch.no_grad()
    def scores(self, image: Image.Image) -> dict[str, float]:
        """RGB picture -> per class name the probability that it is in the picture."""
        model = self.info.model
        scale = model.image_size / math.sqrt(image.width * image.height)
        tensor = normalise(resize_for_search(image, scale, model.patch_size)).unsqueeze(0).to(self.device)
        with autocast(self.device, self.config.precision):
            features = self.network(tensor)
        logits = features.patch_score[0]
        if features.token_score is not None:
            logits = (logits + features.token_score[0]) / 2
        return dict(zip(self.classes, torch.sigmoid(logits.float()).tolist(), strict=True))

    def predict(self, picture: Image.Image, tags: Sequence[str] | None) -> Prediction:
        """tags None: the classes found more likely than not."""
        scores = self.scores(picture)
        if tags is None:
            tags = [name for name, score in scores.items() if score >= 0.5]
        index = [i for i, name in enumerate(self.classes) if name in tags]
        seeds = self.search(picture, index, [self.kind])[self.kind]
        value, label = seeds.best()
        labels = np.where(value >= (0.5 if self.threshold is None else self.threshold), label, 0).astype(np.uint8)
        names = tuple(self.classes[i] for i in index)
        return Prediction(self.classes, labels, value, names, scores, dict(zip(names, seeds.full(), strict=True)))


def load(run: str | Path, device: str = "auto", allow_urls: bool = False) -> Predictor | SegmentationPredictor:
    """A finished run's folder, or one model.safetensors, -> its predictor.

    A run with a segmentation network is answered by that; otherwise the classifier searches, with the run's settings and
    threshold. allow_urls: fetch pictures that are given by their web address.
    """
    predictor = _load(Path(run), device)
    predictor.allow_urls = allow_urls
    return predictor


def _load(path: Path, device: str) -> Predictor | SegmentationPredictor:
    if path.is_file():
        return SegmentationPredictor(path, device=device) if is_segmenter(path) else Predictor(path, SearchConfig(), None, device)
    segmenter = path / "segment" / "model.safetensors"
    return SegmentationPredictor(segmenter, device=device) if segmenter.is_file() else load_classifier(path, device)


def load_classifier(run: Path, device: str = "auto") -> Predictor:
    """The search of a finished run's classifier, whether or not the run has a segmentation network too."""
    seeds = run / "seeds"
    search = load_config(seeds / "config.toml").search if (seeds / "config.toml").is_file() else SearchConfig()
    metrics = seeds / "metrics.json"
    threshold = float(read_json(metrics)["threshold"]) if metrics.is_file() else None
    return Predictor(run / "train" / "model.safetensors", search, threshold, device)

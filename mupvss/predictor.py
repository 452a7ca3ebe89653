"""The one inference path: a trained network with its preprocessing, answering at the picture's own size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mupvss.config.load import load_config
from mupvss.config.schema import SearchConfig
from mupvss.data.images import read_image
from mupvss.data.preprocess import normalise, resize_for_search
from mupvss.engine.checkpoint import read_model
from mupvss.engine.device import autocast, pick_device
from mupvss.files import read_json
from mupvss.model.build import build_model
from mupvss.search.maps import chosen_kind
from mupvss.search.multiscale import search_maps
from mupvss.search.seeds import Seeds


@dataclass(frozen=True)
class Prediction:
    """What was found in one picture of H x W pixels."""

    classes: tuple[str, ...]
    """Names behind the ids 1, 2, ... of `labels`."""
    labels: np.ndarray
    """(H, W) uint8 class ids, 0 background."""
    confidence: np.ndarray
    """(H, W) float32 in [0, 1]: the best map's value."""
    tags: tuple[str, ...]
    """The tags that were searched for: given, or predicted."""
    scores: dict[str, float]
    """Per class the probability that it is in the picture."""


class Predictor:
    """Call it with a picture, and its tags if they are known."""

    def __init__(self, checkpoint: Path, search: SearchConfig, threshold: float | None = None, device: str = "auto") -> None:
        tensors, self.info = read_model(checkpoint)
        self.device = pick_device(device)
        self.network = build_model(self.info.model, len(self.info.classes), pretrained=False)
        self.network.load_state_dict(tensors)
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

    def search(self, image: Image.Image, classes: Sequence[int], kinds: Sequence[str]) -> dict[str, Tensor]:
        """RGB picture -> per kind of map (len(classes), h, w) in [0, 1] on the canvas of the search's stride."""
        model = self.info.model
        return search_maps(self.network, image, classes, kinds, self.config, model.patch_size, model.image_size)

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

    def __call__(self, image: Image.Image | np.ndarray | str | Path, tags: Sequence[str] | None = None) -> Prediction:
        """A PIL picture, an RGB array (H, W, 3) uint8 or a path -> Prediction at the picture's size.

        tags None: the classes found more likely than not. ValueError for a tag the network was not trained on.
        """
        picture = _as_picture(image)
        scores = self.scores(picture)
        if tags is None:
            tags = [name for name, score in scores.items() if score >= 0.5]
        unknown = [tag for tag in tags if tag not in self.classes]
        if unknown:
            raise ValueError(f"unknown tag '{unknown[0]}'; this network knows {', '.join(self.classes)}")
        index = [i for i, name in enumerate(self.classes) if name in tags]
        kind = self.kind
        maps = self.search(picture, index, [kind])[kind].numpy()
        seeds = Seeds(np.array(index, np.int16) + 1, maps, (picture.height, picture.width), self.config.canvas_stride)
        value, label = seeds.best()
        threshold = 0.5 if self.threshold is None else self.threshold
        labels = np.where(value >= threshold, label, 0).astype(np.uint8)
        return Prediction(self.classes, labels, value, tuple(self.classes[i] for i in index), scores)


def load(run: str | Path, device: str = "auto") -> Predictor:
    """A finished run's folder, or one model.safetensors, -> Predictor with the run's search settings and threshold."""
    path = Path(run)
    if path.is_file():
        return Predictor(path, SearchConfig(), None, device)
    seeds = path / "seeds"
    search = load_config(seeds / "config.toml").search if (seeds / "config.toml").is_file() else SearchConfig()
    metrics = seeds / "metrics.json"
    threshold = float(read_json(metrics)["threshold"]) if metrics.is_file() else None
    return Predictor(path / "train" / "model.safetensors", search, threshold, device)


def _as_picture(image: Image.Image | np.ndarray | str | Path) -> Image.Image:
    if isinstance(image, (str, Path)):
        return read_image(Path(image))
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"expected an RGB array (H, W, 3) of uint8, not {image.shape} of {image.dtype}")
        return Image.fromarray(image)
    return image.convert("RGB")

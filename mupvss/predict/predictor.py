"""The classifier's half of the inference path: a trained network with its preprocessing and search, at the picture's own size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from mupvss.data.preprocess import MAX_SEARCH_PIXELS, normalise, reduced, reduction, resize_for_search
from mupvss.errors import CheckpointError
from mupvss.methods.checkpoint import ModelInfo, load_network, save_model, search_settings
from mupvss.model.checkpoint import load_tensors
from mupvss.model.features import Features
from mupvss.model.licences import Origin
from mupvss.model.mupvss import MuPVSSNetwork
from mupvss.options import SearchConfig, Section
from mupvss.predict.calibration import calibration_of, calibration_settings
from mupvss.predict.hub import SharedPredictor
from mupvss.predict.prediction import FullSize, PicturePredictor, Prediction
from mupvss.runtime.device import autocast, pick_device
from mupvss.search.maps import asked_kinds, chosen_kind
from mupvss.search.multiscale import cell_size, search_maps
from mupvss.search.seeds import Seeds


def shareable(search: SearchConfig) -> dict[str, Any]:
    """The settings of a search without the folder of another method's maps, which belongs to one computer."""
    return search.model_copy(update={"given": None}).model_dump(mode="json")


class Predictor(SharedPredictor, PicturePredictor):
    """The classifier with its spatial search."""

    def __init__(
        self,
        network: nn.Module,
        info: ModelInfo,
        search: SearchConfig | None = None,
        options: Section | None = None,
        threshold: float | None = None,
        device: str = "auto",
    ) -> None:
        """
        Args:
            network: Images (B, 3, H, W), normalised -> Features.
            info: What the checkpoint says about the network: classes, method, sizes.
            search: Scales, affinities and canvas of the search. None: the defaults.
            options: The method's own options of its search. None: the defaults.
            threshold: Map value in [0, 1] from which a pixel belongs to an object; 0: every pixel belongs to one. None: 0.5.
            device: As for `load`.
        """
        self.info, self.device = info, pick_device(device)
        self.network = network.to(self.device).eval()
        self.config = SearchConfig() if search is None else search
        self.options = info.method.search() if options is None else options
        self.threshold, self.maps = threshold, info.method.offered()

    @classmethod
    def open(
        cls,
        checkpoint: Path,
        search: SearchConfig | None = None,
        options: Section | None = None,
        threshold: float | None = None,
        device: str = "auto",
    ) -> Predictor:
        return cls(*load_network(checkpoint), search, options, threshold, device)

    def remember(self, centres: Path) -> None:
        """Gives the network the centres that the stage `seeds` gathered. CheckpointError if they are of another network."""
        tensors, header = load_tensors(centres)
        found, other = (tensors.get(name) for name in ("found", "other"))
        network: Any = self.network
        fits = isinstance(network, MuPVSSNetwork) and header.get("classes") == list(self.classes)
        if not fits or found is None or other is None or {found.shape[-1], other.shape[-1]} != {network.backbone.width}:
            raise CheckpointError(f"{centres}: centres of another network than the run has now; run 'mupvss seeds' again")
        network.remember(found, other)

    def save_checkpoint(self, path: Path) -> None:
        save_model(path, self.network, self.info)

    def settings(self) -> dict[str, Any]:
        return {
            "search": shareable(self.config),
            "options": self.options.model_dump(mode="json"),
            "threshold": self.threshold,
            **calibration_settings(self.calibration),
        }

    @classmethod
    def from_settings(cls, checkpoint: Path, settings: dict[str, Any], device: str) -> Predictor:
        network, info = load_network(checkpoint)
        found = cls(network, info, *search_settings(settings, info.method), settings["threshold"], device)
        found.calibration = calibration_of(settings)
        return found

    @property
    def kinds(self) -> tuple[str, ...]:
        """The maps that are made: `search.kinds`, or all that the method offers, its own first."""
        return asked_kinds(self.maps, self.config.kinds)

    @property
    def kind(self) -> str:
        """The maps that become masks."""
        return chosen_kind(self.maps, self.config.maps)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.info.classes

    @property
    def origins(self) -> tuple[Origin, ...]:
        return self.info.origins

    def search(self, image: Image.Image, classes: Sequence[int], kinds: Sequence[str]) -> dict[str, Seeds]:
        """Search one picture for some classes (paper, Sec. 3.3).

        Args:
            image: RGB picture.
            classes: Indices of the classes, from 0.
            kinds: Names of maps, out of `maps`.

        Returns:
            Per kind the maps in [0, 1], one per class. A very large picture is searched at a reduced size, and each cell of its
            maps covers more pixels.
        """
        model, ids = self.info.model, np.array(classes, np.int16) + 1
        # In tiles, attention does not grow with the picture.
        factor = reduction(image.size, max(MAX_SEARCH_PIXELS, self.config.size**2) if self.config.tile else MAX_SEARCH_PIXELS)
        small, size = reduced(image, factor), (image.height, image.width)
        stride = cell_size(small.size, self.config) * factor
        maps = search_maps(
            self.network,
            small,
            classes,
            kinds,
            self.maps,
            self.config,
            self.options,
            model.patch_size,
            model.image_size,
            self.info.method.shared,
        )
        return {kind: Seeds(ids, found.numpy(), size, stride) for kind, found in maps.items()}

    @property
    def stride(self) -> int:
        """Sides of the network's input are multiples of this, in pixels."""
        return self.info.model.patch_size

    def likely_tags(self, scores: dict[str, float]) -> list[str]:
        """The classes whose probability in `scores` is at least 0.5."""
        return [name for name in self.classes if scores[name] >= 0.5]

    @torch.no_grad()
    def features(self, image: Image.Image, size: float = 1.0, mirror: bool = False, need_attention: bool = False) -> Features:
        """One pass over the whole picture, resized to the area of a square of `size` times the training's side. mirror: add the
        mirrored picture, so that B = 2."""
        model = self.info.model
        scale = size * model.image_size / math.sqrt(image.width * image.height)
        tensor = normalise(resize_for_search(image, scale, model.patch_size))
        views = torch.stack((tensor, tensor.flip(-1))) if mirror else tensor.unsqueeze(0)
        with autocast(self.device, self.config.precision):
            return self.network(views.to(self.device), need_attention=need_attention)

    @torch.no_grad()
    def scores(self, image: Image.Image) -> dict[str, float]:
        """
        Args:
            image: RGB picture.

        Returns:
            Per class name the probability, in [0, 1], that the class is in the picture.
        """
        features = self.features(image)
        logits = features.patch_score[0]
        if features.token_score is not None:
            logits = (logits + features.token_score[0]) / 2
        return self.calibrated(dict(zip(self.classes, torch.sigmoid(logits.float()).tolist(), strict=True)))

    def predict(self, picture: Image.Image, tags: Sequence[str] | None) -> Prediction:
        """tags None: the classes whose probability is at least 0.5."""
        scores = self.scores(picture)
        if tags is None:
            tags = self.likely_tags(scores)
        index = [i for i, name in enumerate(self.classes) if name in tags]
        seeds = self.search(picture, index, [self.kind])[self.kind]
        value, label = seeds.best()
        labels = np.where(value >= (0.5 if self.threshold is None else self.threshold), label, 0).astype(np.uint8)
        names = tuple(self.classes[i] for i in index)
        return Prediction(self.classes, labels, value, names, scores, FullSize(names, seeds.maps, seeds.size))

"""What a trained network sees in every picture, saved line by line so that a stopped run can resume."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mupvss.data.sample import Dataset
from mupvss.losses.p2p_loss import pooled_similarity
from mupvss.model.features import Features
from mupvss.predict.predictor import Predictor
from mupvss.runtime.log import progress_bar

SIZES = (1.0, 1.35)
"""Sizes at which pictures are viewed, relative to the side of the training pictures; each is also mirrored."""


@dataclass(frozen=True)
class Evidence:
    """Evidence for C classes in n pictures."""

    heads: np.ndarray
    """(n, H, C) float64, unbounded: the score of each head for each class. Heads are the patch classifier and, if the network has
    them, the score of its prototypes or class tokens and P2P's (the search as a classifier)."""
    features: np.ndarray
    """(n, D) float32: the mean patch of each picture, by which pictures are compared with each other."""

    @property
    def scores(self) -> np.ndarray:
        """(n, C) in (0, 1): the patch classifier's probabilities."""
        return 1 / (1 + np.exp(-self.heads[:, 0].clip(-30, 30)))


def gather_evidence(predictors: Sequence[Predictor], dataset: Dataset, path: Path, identity: str) -> Evidence:
    """The heads are averaged over the networks; the features are those of the first one."""
    found = _read(path, identity)
    if not found:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"identity": identity}) + "\n")
    with progress_bar("evidence", len(dataset.samples), "pictures") as advance, path.open("a") as stream:
        for sample in dataset.samples:
            if sample.name not in found:
                entry = {"picture": sample.name, **_look(predictors, sample.open_image())}
                found[sample.name] = entry
                stream.write(json.dumps(entry) + "\n")
                stream.flush()
            advance(1)
    entries = [found[sample.name] for sample in dataset.samples]
    features = [np.frombuffer(base64.b64decode(entry["feature"]), np.float16) for entry in entries]
    return Evidence(np.array([entry["heads"] for entry in entries], np.float64), np.stack(features).astype(np.float32))


def _look(predictors: Sequence[Predictor], image: Image.Image) -> dict[str, Any]:
    heads, feature = [], None
    for predictor in predictors:
        by_attention = getattr(predictor.info.options, "p2p_pool", None) == "attention"
        views = [predictor.features(image, size, mirror=True, need_attention=by_attention) for size in SIZES]
        heads.append(torch.stack([_heads(view, predictor).mean(0) for view in views]).mean(0))
        if feature is None:
            units = [F.normalize(view.patches.float().mean(1), dim=-1) for view in views]
            feature = torch.cat(units).mean(0).cpu().numpy().astype(np.float16)
    assert feature is not None
    mean = torch.stack(heads).mean(0)
    return {
        "heads": [[round(v, 4) for v in row] for row in mean.tolist()],
        "feature": base64.b64encode(feature.tobytes()).decode(),
    }


def _heads(view: Features, predictor: Predictor) -> Tensor:
    """-> (B, H, C)."""
    found = [view.patch_score]
    if view.token_score is not None:
        found.append(view.token_score)
    # Of P2P only what has learned: without that loss its scale and bias say nothing.
    own = predictor.info.options
    learned = getattr(own, "p2p", 0) > 0 or getattr(own, "p2p_dense", 0) > 0
    if view.prototypes is not None and view.decision_scale is not None and view.decision_bias is not None and learned:
        model = predictor.info.model
        best = pooled_similarity(
            view.patches,
            view.prototypes,
            own.p2p_threshold,
            own.p2p_pool,
            model.gwrp_decay,
            model.gwrp_patches,
            view.class_attention,
        )
        found.append(view.decision_scale * best + view.decision_bias)
    return torch.stack([score.float() for score in found], 1)


def _read(path: Path, identity: str) -> dict[str, dict[str, Any]]:
    """Entries written under the same identity. A file with another identity is ignored; a truncated one is read up to the cut."""
    try:
        lines = path.read_text().splitlines(keepends=True)
        if json.loads(lines[0])["identity"] != identity:
            return {}
    except (OSError, IndexError, ValueError, KeyError, TypeError):
        return {}
    whole = [line for line in lines if line.endswith("\n")]
    if len(whole) < len(lines):  # the half-written entry is dropped, and computed again
        path.write_text("".join(whole))
    entries = [json.loads(line) for line in whole[1:]]
    return {entry["picture"]: entry for entry in entries}

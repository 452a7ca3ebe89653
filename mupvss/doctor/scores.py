"""The network's probability of every class in every picture, kept on disk line by line, so that a stopped run goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mupvss.data.sample import Dataset
from mupvss.engine.log import progress_bar
from mupvss.predictor import Predictor


def score_all(predictors: Sequence[Predictor], dataset: Dataset, path: Path, identity: str) -> np.ndarray:
    """-> (n, C) probabilities, the mean over the networks."""
    found = _read(path, identity)
    if not found:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"identity": identity}) + "\n")
    with progress_bar("scores", len(dataset.samples), "pictures") as advance, path.open("a") as stream:
        for sample in dataset.samples:
            if sample.name not in found:
                picture = sample.open_image()
                each = [[p.scores(picture)[name] for name in dataset.classes] for p in predictors]
                found[sample.name] = np.mean(each, 0).tolist()
                stream.write(json.dumps({"picture": sample.name, "scores": found[sample.name]}) + "\n")
                stream.flush()
            advance(1)
    return np.array([found[sample.name] for sample in dataset.samples])


def _read(path: Path, identity: str) -> dict[str, list[float]]:
    """Whole lines written under the same identity; a file of another one, or cut off, does not count or not from there on."""
    try:
        lines = path.read_text().splitlines(keepends=True)
        if json.loads(lines[0])["identity"] != identity:
            return {}
    except (OSError, IndexError, ValueError, KeyError, TypeError):
        return {}
    whole = [line for line in lines if line.endswith("\n")]
    if len(whole) < len(lines):  # what was half written is written again
        path.write_text("".join(whole))
    entries = [json.loads(line) for line in whole[1:]]
    return {entry["picture"]: entry["scores"] for entry in entries}

"""Which run a folder's or a record's figures are of."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from mupvss.config.schema import RunConfig
from mupvss.data.sources import load_dataset
from mupvss.stages.seeds import seeds_fingerprint
from mupvss.stages.stage import truth_identity
from mupvss.stages.train import training_fingerprint


@dataclass(frozen=True)
class Identity:
    """Changes with anything that changes the figures: settings, seed, pictures, masks, version."""

    trained: str
    """Fingerprint of the training."""
    searched: str
    """Fingerprint of the search, which that of the training is a part of."""
    truth: str
    """What scores the search."""
    classes: int

    @property
    def lines(self) -> list[str]:
        return [self.searched, self.truth]

    @property
    def short(self) -> str:
        """Eight hexadecimal digits."""
        return hashlib.sha256("".join(self.lines).encode()).hexdigest()[:8]


def identify(config: RunConfig) -> Identity:
    """DataError if the pictures are not there."""
    trained = training_fingerprint(config, config.model, load_dataset(config.data, "train", config.limit))
    dataset = load_dataset(config.data, "seeds", config.limit)
    searched = seeds_fingerprint(config, trained, dataset)
    return Identity(trained, searched, truth_identity(dataset, config.data), len(dataset.classes))

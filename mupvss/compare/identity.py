"""Which run a folder's or a record's figures are of."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from mupvss.config.schema import DataConfig, RunConfig
from mupvss.data.sample import Dataset
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


class Pictures:
    """What runs on the same data share, read when it is first asked for; drawing scenes for their tags takes half a minute."""

    def __init__(self, data: DataConfig, limit: int | None) -> None:
        self.data, self.limit = data, limit

    @cached_property
    def learned(self) -> Dataset:
        return load_dataset(self.data, "train", self.limit)

    @cached_property
    def searched(self) -> Dataset:
        return load_dataset(self.data, "seeds", self.limit)

    @cached_property
    def truth(self) -> str:
        return truth_identity(self.searched, self.data)


def identify(config: RunConfig, pictures: Pictures) -> Identity:
    """DataError if the pictures are not there."""
    trained = training_fingerprint(config, config.model, pictures.learned)
    searched = seeds_fingerprint(config, trained, pictures.searched)
    return Identity(trained, searched, pictures.truth, len(pictures.searched.classes))

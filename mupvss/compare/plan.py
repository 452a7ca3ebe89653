"""The plan of a comparison: one run per config and seed, which runs share a training, and how each is identified."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mupvss.config.load import config_name, is_row, load_config, rows_of
from mupvss.config.run import RunConfig
from mupvss.data.readable import readable
from mupvss.data.sample import Dataset
from mupvss.data.sources import Purpose, load_dataset
from mupvss.errors import ConfigError
from mupvss.options import DataConfig
from mupvss.stages.run_folder import CHECKED, Run, fingerprint, known_by, truth_identity
from mupvss.stages.seeds import SEEDS
from mupvss.stages.train import TRAIN, train_inputs


@dataclass(frozen=True)
class Identity:
    """Changes with anything that affects a run's figures: settings, seed, pictures, masks."""

    trained: str
    """Fingerprint of the training."""
    searched: str
    """Fingerprint of the search; it includes that of the training."""
    truth: str
    """Identity of the true masks that score the search."""
    classes: int

    @property
    def lines(self) -> list[str]:
        return [self.searched, self.truth]

    @property
    def short(self) -> str:
        """The identity in eight hexadecimal digits."""
        return hashlib.sha256("".join(self.lines).encode()).hexdigest()[:8]


class Pictures:
    """Data that runs on the same pictures share, read on first use: drawing scenes to get their tags takes half a minute."""

    def __init__(self, data: DataConfig, limit: int | None, checked_in: Path) -> None:
        """checked_in: as in `Run`."""
        self.data, self.limit, self.checked_in = data, limit, checked_in

    @cached_property
    def learned(self) -> Dataset:
        return self._usable("train")

    @cached_property
    def searched(self) -> Dataset:
        return self._usable("seeds")

    def _usable(self, purpose: Purpose) -> Dataset:
        return readable(load_dataset(self.data, purpose, self.limit), self.data.unreadable, self.checked_in / CHECKED)

    @cached_property
    def names(self) -> frozenset[str]:
        """Of the pictures that are searched."""
        return frozenset(sample.name for sample in self.searched.samples)

    def has_all_of(self, other: Pictures) -> bool:
        """Whether all pictures that the other searches are searched here too; of the same data, no name is read for it."""
        return self is other or other.names <= self.names

    @cached_property
    def truth(self) -> str:
        return truth_identity(self.searched, self.data)


def identify(config: RunConfig, pictures: Pictures) -> Identity:
    """The identity of a run. DataError if the pictures are missing."""
    trained = known_by(TRAIN, config, pictures.learned, [])
    searched = known_by(SEEDS, config, pictures.searched, [trained])
    return Identity(trained, searched, pictures.truth, len(pictures.searched.classes))


@dataclass(frozen=True)
class Entry:
    """One config with one seed."""

    name: str
    """The config file's stem, or the row's name in a table of configs."""
    seed: int
    run: Run
    pictures: Pictures = field(compare=False)
    """Shared by all entries on the same data."""

    @cached_property
    def identity(self) -> Identity:
        """Computed on first use, from the pictures as they are at that time."""
        return identify(self.run.config, self.pictures)


def load_configs(paths: Sequence[Path], base: Path | None) -> dict[str, RunConfig]:
    """The configs by file stem or row name, each on top of `base`; a table of configs expands to all its rows. ConfigError if two
    have the same name."""
    configs: dict[str, RunConfig] = {}
    for path in (row for given in paths for row in _each_row(given)):
        name = config_name(path)
        if name in configs:
            raise ConfigError(f"{path}: another config is called {name} too; rename one, since rows are named after files")
        configs[name] = load_config(path, base)
    return configs


def _each_row(path: Path) -> list[Path]:
    names = [] if is_row(path) else rows_of(path)
    return [path.with_name(f"{path.name}:{name}") for name in names] or [path]


def plan(configs: dict[str, RunConfig], seeds: Sequence[int], out: Path) -> list[Entry]:
    """Entries in the order of the seeds, so that every method has a result early. Configs that differ only in the search share a
    training."""
    entries: list[Entry] = []
    trained: dict[str, Path] = {}
    pictures: dict[str, Pictures] = {}
    for seed in seeds:
        for name, config in configs.items():
            folder = out / name / f"seed-{seed}"
            seeded = config.model_copy(update={"seed": seed})
            key = fingerprint(train_inputs(seeded), seeded.data, seeded.limit, seeded.snapshots)
            shared = trained.setdefault(key, folder)
            data = pictures.setdefault(
                f"{config.data.model_dump_json()} {config.limit}", Pictures(config.data, config.limit, out)
            )
            run = Run(seeded, folder, None if shared == folder else shared, checked_in=out)
            entries.append(Entry(name, seed, run, data))
    return entries

"""What a comparison consists of: one run per config and seed, and which of them share a training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mupvss.compare.identity import Identity, Pictures, identify
from mupvss.config.load import load_config
from mupvss.config.schema import RunConfig
from mupvss.errors import ConfigError
from mupvss.stages.stage import Run


@dataclass(frozen=True)
class Entry:
    """One config with one seed."""

    name: str
    """The config file's stem."""
    seed: int
    run: Run
    pictures: Pictures = field(compare=False)
    """One for all entries on the same data."""

    @cached_property
    def identity(self) -> Identity:
        """Worked out when it is first asked for, from the pictures as they are then."""
        return identify(self.run.config, self.pictures)


def load_configs(paths: Sequence[Path], base: Path | None) -> dict[str, RunConfig]:
    """The configs by their file's stem, each over `base`; ConfigError if two share a stem."""
    configs: dict[str, RunConfig] = {}
    for path in paths:
        if path.stem in configs:
            raise ConfigError(f"{path}: another config is called {path.stem} too; rename one, since rows are named after files")
        configs[path.stem] = load_config(path, base)
    return configs


def plan(configs: dict[str, RunConfig], seeds: Sequence[int], out: Path) -> list[Entry]:
    """Seed by seed, so that every method has a figure early. Configs that differ in the search alone share one training."""
    entries: list[Entry] = []
    trained: dict[str, Path] = {}
    pictures: dict[str, Pictures] = {}
    for seed in seeds:
        for name, config in configs.items():
            folder = out / name / f"seed-{seed}"
            seeded = config.model_copy(update={"seed": seed})
            key = seeded.model_copy(update={"search": type(seeded.search)(), "name": "", "baseline": False}).model_dump_json()
            shared = trained.setdefault(key, folder)
            data = pictures.setdefault(f"{config.data.model_dump_json()} {config.limit}", Pictures(config.data, config.limit))
            entries.append(Entry(name, seed, Run(seeded, folder, None if shared == folder else shared), data))
    return entries

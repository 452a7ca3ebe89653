"""`mupvss compare`: several configs and seeds in one table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from mupvss.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class CompareArguments:
    configs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Configs to compare, each a row; a preset like methods/mctformer needs --base."""
    base: Path | None = None
    """Config whose values hold wherever the others say nothing: pictures, backbone, budget."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the trainings."""
    out: Path = Path("runs/compare")
    """Folder of the comparison."""
    reference: str | None = None
    """Config that differences are taken from, by its file's stem; default: the last one."""
    curve: int = 0
    """Pictures for a learning curve of the first seed, which needs train.snapshots; 0: none."""
    pictures: int = 6
    """Pictures shown side by side; 0: no figures."""
    records: Path | None = None
    """Folder of small files with the figures of finished runs: what is there is not trained again, unless for the learning curve
    that it lacks; what is new is added."""
    report_only: bool = False
    """Train and search nothing; tables and pictures of what is there."""


def compare(argv: Sequence[str]) -> None:
    """Several configs, several seeds, one table with pictures: trains what is missing."""
    arguments = tyro.cli(CompareArguments, prog="mupvss compare", args=list(argv))
    from mupvss.compare.run import Comparison
    from mupvss.compare.run import compare as run_comparison

    values = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(arguments)}
    if not arguments.configs or not arguments.seeds:
        raise ConfigError("mupvss compare needs at least one config and one seed")
    if arguments.curve < 0 or arguments.pictures < 0:
        raise ConfigError(f"--curve is {arguments.curve}, --pictures is {arguments.pictures}; expected 0 or more")
    run_comparison(Comparison(**values | {"reference": arguments.reference or arguments.configs[-1].stem}))

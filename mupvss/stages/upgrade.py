"""Brings configs and finished runs of earlier versions up to date, and says what would be made again."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from mupvss.config.load import build, load_config, read_values
from mupvss.config.run import RunConfig
from mupvss.errors import ConfigError, DataError, UserError
from mupvss.files import read_json, write_text
from mupvss.methods.earlier import modern
from mupvss.runtime.device import prepare
from mupvss.stages.earlier import take_over
from mupvss.stages.run import STAGES
from mupvss.stages.run_folder import (
    Run,
    alone_in,
    dataset_identity,
    finished,
    gather_metrics,
    identities,
    pictures_of,
)


@dataclass(frozen=True)
class State:
    """What became of one stage of a run."""

    stage: str
    version: str
    """The version of mupvss that made it."""
    said: str
    valid: bool


def upgrade_run(out: Path) -> Iterator[State]:
    """Takes over the finished stages of an earlier version, in place, and computes nothing. DataError if the folder holds no
    run."""
    folders = {name: out / name for name in STAGES if (out / name / "stage.json").is_file()}
    if not folders:
        raise DataError(f"{out}: not the folder of a run; give the folder that 'mupvss run' wrote")
    with alone_in(out):
        yield from _upgraded_all(out, folders)


def _upgraded_all(out: Path, folders: dict[str, Path]) -> Iterator[State]:
    broken = False
    for name, folder in folders.items():
        version = "an unknown version"
        try:
            version = str(read_json(folder / "stage.json").get("version", "0.1.0"))
            yield State(name, version, *_upgraded(name, folder, out))
        except (UserError, OSError, ValueError, KeyError, AttributeError, TypeError) as error:  # damaged files of any kind
            broken = True
            yield State(name, version, f"cannot be checked: {error}", valid=False)
    if not broken:
        gather_metrics(Run(RunConfig(), out))  # of a run, only its folder is read there


def _upgraded(name: str, folder: Path, out: Path) -> tuple[str, bool]:
    """-> what there is to say, and whether the stage is valid now, by the config that it was made with."""
    if not (folder / "metrics.json").is_file():
        return "not finished; the next run goes on with it", True
    if (
        any(not (out / other / "stage.json").is_file() for other in STAGES[name].after if other != "affinity")
        and name != "report"
    ):
        return "cannot be checked, since what it builds on is not in this folder", True
    stage, run = STAGES[name], Run(load_config(folder / "config.toml", trusted=False), out)
    prepare(run.config.seed, run.config.threads)
    dataset = pictures_of(run, stage.pictures)
    known, truth = identities(stage, run, dataset, dataset_identity(dataset))
    if finished(folder, known, truth):
        return "up to date", True
    if take_over(stage, run, dataset, known, truth):
        return "taken over", True
    return "would be made again: settings, pictures, tags, or what it builds on have changed since", name == "report"


def upgrade_config(path: Path) -> Path | None:
    """Rewrites a config of an earlier version in today's words. The old file is kept beside it, with the same permissions.

    Args:
        path: A TOML file.

    Returns:
        Where the old file is kept; None if there was nothing to change.

    Raises:
        ConfigError: An option was removed, a value is wrong, or the file is part of a run. It is left as it is.
    """
    if (path.parent / "stage.json").is_file():
        raise ConfigError(f"{path}: is part of a run, which is known by this file; give the folder of the run")
    path = path.resolve()  # a link stays one
    try:
        text = path.read_text(encoding="utf-8-sig")
        old = tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a config in TOML ({error}); give a config, or the folder of a run") from None
    rows = old.pop("rows", None)
    if rows is not None and not (isinstance(rows, dict) and all(isinstance(row, dict) for row in rows.values())):
        raise ConfigError(f"{path}: has no table of rows; expected [rows.NAME]")
    new: dict[str, Any] = modern(old, str(path), wanted=True)
    if rows is not None:
        for row in rows:
            build(read_values(path.with_name(f"{path.name}:{row}")), f"{path}:{row}")
        new["rows"] = {name: modern(row, str(path), wanted=True) for name, row in rows.items()}
        old["rows"] = rows
    else:
        build(read_values(path), str(path))  # what cannot be loaded is not rewritten
    if new == old:
        return None
    kept = next(place for n in range(1, 1000) if not (place := path.with_suffix(f".before-{n}{path.suffix}")).exists())
    shutil.copy2(path, kept)
    write_text(path, tomli_w.dumps(new))
    shutil.copymode(kept, path)
    return kept

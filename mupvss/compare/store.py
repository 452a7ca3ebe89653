"""Figures of finished runs as one small JSON file each, so that a comparison can be made over several days and computers.

FOLDER/CONFIG/seed-N.json. A record stands for its run only while settings, pictures and version are those it was made with.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from mupvss.compare.plan import Entry
from mupvss.compare.records import Record
from mupvss.data.sources import load_dataset
from mupvss.errors import DataError
from mupvss.files import read_json, write_json
from mupvss.stages.seeds import seeds_fingerprint
from mupvss.stages.stage import truth_identity
from mupvss.stages.train import training_fingerprint

KEPT = ("maps", "kinds", "train", "seeds", "cost", "curve")


def identity(entry: Entry) -> list[str]:
    """Changes with anything that changes the run's figures: what its search depends on, and what scores it."""
    config = entry.run.config
    trained = training_fingerprint(config, config.model, load_dataset(config.data, "train", config.limit))
    searched = load_dataset(config.data, "seeds", config.limit)
    return [seeds_fingerprint(config, trained, searched), truth_identity(searched, config.data)]


def stored_record(folder: Path, entry: Entry) -> Record | None:
    """None where there is none, or one of other settings; DataError for a file that is not a record."""
    path = _path(folder, entry)
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = read_json(path)
        if found["identity"] != identity(entry):
            return None
        return Record(entry, **{key: found[key] for key in KEPT}, on_disk=False)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: not a record of a finished run ({error!r}); delete it, and the run is made again") from None


def store_record(folder: Path, record: Record) -> None:
    """One of other settings that is there is kept as seed-N.earlier.json."""
    path = _path(folder, record.entry)
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record) if field.name in KEPT}
    new = {"identity": identity(record.entry), **values}
    if path.is_file():
        old = read_json(path)
        if old == new:
            return
        if old.get("identity") != new["identity"]:
            path.replace(path.with_suffix(".earlier.json"))
    write_json(path, new)


def _path(folder: Path, entry: Entry) -> Path:
    return folder / entry.name / f"seed-{entry.seed}.json"

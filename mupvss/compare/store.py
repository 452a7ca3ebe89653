"""Figures of finished runs as one small JSON file each, so that a comparison can be made over several days and computers.

FOLDER/CONFIG/seed-N-IDENTITY.json: a record stands for its run only while settings, pictures and version are those it was made
with, and lies beside those of others.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mupvss.compare.form import Figures
from mupvss.compare.plan import Entry
from mupvss.compare.records import Record, read_record
from mupvss.errors import DataError
from mupvss.files import write_json

KEPT = tuple(name for name in Figures.model_fields if name != "identity")


def known_record(folder: Path | None, entry: Entry) -> Record | None:
    """Of the run on disk, else the one in the folder of records; with the latter's learning curve where the former has none."""
    own, kept = read_record(entry), stored_record(folder, entry)
    if own is None or kept is None or own.curve:
        return own or kept
    return dataclasses.replace(own, curve=kept.curve, curve_pictures=kept.curve_pictures)


def stored_record(folder: Path | None, entry: Entry) -> Record | None:
    """None where there is none of these settings; DataError for a file that is not a record."""
    if folder is None or not (path := _path(folder, entry)).is_file():
        return None
    figures = read_figures(path, entry.identity.lines, entry.identity.classes)
    return None if figures is None else Record(entry, **figures, on_disk=False)


def read_figures(path: Path, made_with: list[str], classes: int) -> dict[str, Any] | None:
    """Those of KEPT; None if the file's identity is another. DataError for a file that is not a record."""
    try:
        text = path.read_text(encoding="utf-8")
        found: dict[str, Any] = json.loads(text)
        if found["identity"] != made_with:
            return None
        Figures.model_validate_json(text).check_classes(classes)
    except ValidationError as error:
        first = error.errors()[0]
        raise _damaged(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from None
    return {key: found[key] for key in KEPT}


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"{path}: not a record of a finished run ({why}); delete it, and the run is made again")


def store_record(folder: Path, record: Record) -> None:
    values = {name: getattr(record, name) for name in KEPT}
    write_json(_path(folder, record.entry), {"identity": record.entry.identity.lines, **values})


def others(folder: Path, entry: Entry) -> list[Path]:
    """Records of this config's name and seed, made with other settings, pictures or another version."""
    found = (folder / entry.name).glob(f"seed-{entry.seed}-*.json")
    return sorted(path for path in found if path != _path(folder, entry))


def _path(folder: Path, entry: Entry) -> Path:
    return folder / entry.name / f"seed-{entry.seed}-{entry.identity.short}.json"

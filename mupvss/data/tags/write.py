"""Tag tables that `read_tags` reads back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Set
from pathlib import Path

from mupvss.files import write_text


def write_tags(path: Path, tags: Mapping[str, Set[str]]) -> None:
    """.csv or .jsonl, in the mapping's order. ValueError for another suffix, or a tag that a CSV cannot hold."""
    if path.suffix == ".jsonl":
        lines = (json.dumps({"image": name, "tags": sorted(entry)}, ensure_ascii=False) for name, entry in tags.items())
        write_text(path, "".join(f"{line}\n" for line in lines))
        return
    if path.suffix != ".csv":
        raise ValueError(f"{path}: tag tables are written as .csv or .jsonl, not '{path.suffix}'")
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("image", "tags"))
    for name, entry in tags.items():
        unfit = [tag for tag in entry if set(tag) & set("|;,")]
        if unfit:
            raise ValueError(f"{path}: the tag '{unfit[0]}' has one of | ; , in it; write a .jsonl instead")
        writer.writerow((name, "|".join(sorted(entry))))
    write_text(path, buffer.getvalue())

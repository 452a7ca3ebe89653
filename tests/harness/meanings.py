"""Reads what labelling tools and spreadsheets write, and compares the tags with what the tools' own readers find.

    python -m venv tools && tools/bin/pip install label-studio-sdk pandas supervision roboflow
    python -m venv datumaro && datumaro/bin/pip install datumaro
    python tests/harness/meanings.py OUT --python tools/bin/python --python datumaro/bin/python --files 2000

The tools have environments of their own, since their pins clash with ours. There `tool_cases.py` writes valid files with random
content. Differences are grouped by kind and kept under OUT/FORMAT/differences.jsonl. Exit status 1 if there is any.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from mupvss.data.folder import load_folder
from mupvss.errors import DataError
from mupvss.options import FolderData

CASES = Path(__file__).with_name("tool_cases.py")
TOOLS = {
    "label-studio-json": "label_studio_sdk",
    "label-studio-json-min": "label_studio_sdk",
    "label-studio-csv": "label_studio_sdk",
    "pandas-csv": "pandas",
    "pandas-json": "pandas",
    "supervision-coco": "supervision",
    "supervision-voc": "supervision",
    "supervision-createml": "supervision",
    "supervision-labelme": "supervision",
    "roboflow-classes": "roboflow",
    "datumaro-cvat": "datumaro",
    "datumaro-coco": "datumaro",
    "datumaro-voc": "datumaro",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--python", action="append", default=[], help="Python of an environment with some of the tools")
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(TOOLS), choices=list(TOOLS))
    given = parser.parse_args()
    worst = 0
    for name in given.only:
        python = next((path for path in given.python if _has(path, TOOLS[name])), None)
        if python is None:
            print(f"{name}: no --python has {TOOLS[name]}")
            worst = 1
            continue
        begin = time.monotonic()
        arguments = [python, str(CASES), name, str(given.out / name), "--files", str(given.files), "--seed", str(given.seed)]
        made = subprocess.run(arguments, capture_output=True, text=True)
        if made.returncode:
            print(f"{name}: {made.stderr[-2000:]}")
            return 2
        about = json.loads(made.stdout.splitlines()[-1])
        kinds = compare(given.out / name)
        cases = given.files - about["refused"]
        shown = "; ".join(f"{kind} ({count})" for kind, count in kinds.most_common(8)) or "none"
        seconds = time.monotonic() - begin
        tool = f"{about['package']} {about['version']}"
        print(f"{name}: {tool}, {cases} files, {sum(kinds.values())} differ: {shown}  [{seconds:.0f} s]")
        sys.stdout.flush()
        worst = max(worst, 1 if kinds else 0)
    return worst


def _has(python: str, module: str) -> bool:
    return subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode == 0


def compare(folder: Path) -> Counter[str]:
    """Kind of difference -> the number of files with it."""
    kinds: Counter[str] = Counter()
    with (folder / "differences.jsonl").open("w", encoding="utf-8") as stream:
        for line in (folder / "expected.jsonl").read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            kind, found = difference(folder / f"{entry['case']:05d}", entry)
            if kind:
                kinds[kind] += 1
                stream.write(json.dumps({**entry, "kind": kind, "found": found}, ensure_ascii=False) + "\n")
    return kinds


def difference(case: Path, entry: dict[str, Any]) -> tuple[str, Any]:
    """The kind of difference between the tags that we read and those expected, empty if there is none; and what we read."""
    expected = {name: set(map(_same, tags)) for name, tags in entry["tags"].items()}
    try:
        found = tags_of(case, entry["file"], entry["options"])
    except DataError as error:
        text = re.sub(r"'[^']*'|\S*/\S*|\d+|\[.*\]", "_", str(error))
        return ("" if not any(expected.values()) else f"refused: {text[:110]}"), str(error)
    if found == expected:
        return "", None
    if set(found) != set(expected):
        return ("pictures lacking" if set(expected) - set(found) else "pictures too many"), _plain(found)
    for name in expected:
        if found[name] < expected[name]:
            return "tags lacking", _plain(found)
        if found[name] > expected[name]:
            return "tags too many", _plain(found)
    return "other tags", _plain(found)


def tags_of(case: Path, file: str, options: dict[str, Any]) -> dict[str, set[str]]:
    root = case / "pictures"
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    dataset = load_folder(FolderData(root=root, tags=case / file, **given), "train")
    return {Path(sample.origin).relative_to(root).as_posix(): set(sample.tags) for sample in dataset.samples}


def _same(tag: str) -> str:
    """Tags are compared as we keep them: composed, with single blanks."""
    import unicodedata

    return " ".join(unicodedata.normalize("NFC", tag).split())


def _plain(found: dict[str, set[str]]) -> dict[str, list[str]]:
    return {name: sorted(tags) for name, tags in found.items()}


if __name__ == "__main__":
    sys.exit(main())

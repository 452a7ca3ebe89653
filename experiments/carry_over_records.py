"""Carries the records of docs/results over from version 0.1.0's identities and names of maps to today's.

    python experiments/carry_over_records.py f61b4cf [--write]

Per record: its config as it was at that commit, over the base it was compared on, must give the identity that stands in the file,
by
that version's way of making it (`stages/earlier.py`). Then the same config as it is today gives the new identity and the new
name,
kinds of maps are renamed by the table in `methods/earlier.py`, and no figure is touched. What does not match is listed and left.
Needs the pictures that the records are of.
"""

from __future__ import annotations

import argparse
import subprocess
import tomllib
from pathlib import Path
from typing import Any

from mupvss.compare.plan import Identity, Pictures, identify
from mupvss.compare.results import read_figures
from mupvss.config.load import load_config, merged, rows_of
from mupvss.data.sample import Dataset
from mupvss.files import read_json, write_json
from mupvss.methods.earlier import MAPS
from mupvss.stages.earlier import renamed_figures, stage_identity, truth_identity

RESULTS = Path("docs/results")
BASES = {
    "ablations": "configs/comparisons/voc-animals-screening.toml",
    "scenes": "configs/comparisons/scenes.toml",
    "voc-animals": "configs/comparisons/voc-animals.toml",
}


def as_it_was(commit: str, path: str) -> dict[str, Any]:
    """The values of a config at a commit, over those of what it extends."""
    found = subprocess.run(["git", "show", f"{commit}:{path}"], capture_output=True, text=True, check=True).stdout
    own = tomllib.loads(found)
    values: dict[str, Any] = {}
    for name in own.pop("extends", []):
        inner = (Path(path).parent / name).as_posix()
        while "/../" in inner:
            head, _, tail = inner.partition("/../")
            inner = f"{head.rpartition('/')[0]}/{tail}"
        values = merged(values, as_it_was(commit, inner))
    return merged(values, own)


def old_place(commit: str, name: str) -> str:
    listed = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", commit, "configs"], capture_output=True, text=True, check=True
    )
    return next(path for path in listed.stdout.splitlines() if Path(path).stem == name)


def todays(name: str, base: Path) -> Any:
    table = Path("configs/ablations.toml")
    path = Path(f"{table}:{name}") if name in rows_of(table) else Path(f"configs/methods/{name}.toml")
    return load_config(path, base)


def old_identity(values: dict[str, Any], learned: Dataset, searched: Dataset) -> list[str]:
    trained = stage_identity("train", values, learned, {})
    return [stage_identity("seeds", values, searched, {"train": trained}), truth_identity(values, searched)]


def carried(record: dict[str, Any], identity: Identity) -> dict[str, Any]:
    """The same figures under today's names."""
    kinds = {MAPS.get(kind, kind): value for kind, value in record["kinds"].items()}
    points = [{MAPS.get(key, key): value for key, value in point.items()} for point in record["curve"]]
    return {
        **record,
        "identity": identity.lines,
        "maps": MAPS.get(record["maps"], record["maps"]),
        "kinds": kinds,
        "curve": points,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("--write", action="store_true", help="write the new files and delete the old ones")
    given = parser.parse_args()
    done, left = 0, []
    for set_name, base in BASES.items():
        pictures: Pictures | None = None
        for path in sorted((RESULTS / set_name).glob("*/seed-*.json")):
            record, name, seed = read_json(path), path.parent.name, int(path.stem.split("-")[1])
            was = merged(as_it_was(given.commit, base), as_it_was(given.commit, old_place(given.commit, name))) | {"seed": seed}
            config = todays(name, Path(base)).model_copy(update={"seed": seed})
            pictures = pictures or Pictures(config.data, config.limit)
            if old_identity(was, pictures.learned, pictures.searched) != record["identity"]:
                left.append(f"{path}: its identity is not that of {name} at {given.commit}")
                continue
            identity = identify(config, pictures)
            target = path.with_name(f"seed-{seed}-{identity.short}.json")
            new = carried(record, identity)
            assert renamed_figures(record["train"]) == record["train"], "no figure has a name of maps in it"
            if given.write:
                write_json(target, new)
                assert read_figures(target, identity.lines, identity.classes) is not None
                if target != path:
                    path.unlink()
            done += 1
    print(f"{done} records carried over{'' if given.write else ' (nothing written)'}, {len(left)} not")
    print(*left, sep="\n")


if __name__ == "__main__":
    main()

"""`mupvss data split`: splits a data set so that every tag is spread over the subsets by their shares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from mupvss.data.folder import load_folder
from mupvss.data.tags import Tags, write_tags
from mupvss.errors import DataError, UserError
from mupvss.options import FolderData


def split_data(pictures: Path, out: Path, tags: Path | None, parts: Sequence[str], seed: int) -> None:
    """-> OUT/NAME.csv for each subset NAME=SHARE (.jsonl if a tag does not fit a CSV); prints the number of pictures in each."""
    shares = parse_parts(parts)
    dataset = load_folder(FolderData(root=pictures, tags=tags), "train")
    known = {Path(sample.origin).relative_to(pictures).as_posix(): sample.tags for sample in dataset.samples}
    suffix = ".jsonl" if any(set(name) & set("|;,") for name in dataset.classes) else ".csv"
    found = split_by_tag(known, shares, seed)
    existing = [out / f"{name}{suffix}" for name in found if (out / f"{name}{suffix}").exists()]
    if existing:
        raise DataError(f"{existing[0]}: already exists; give another folder")
    for name, part in found.items():
        write_tags(out / f"{name}{suffix}", part)
    _print(found, dataset.classes, out)


def parse_parts(parts: Sequence[str]) -> dict[str, float]:
    """('train=0.8', 'val=0.2') -> shares that sum to 1. UserError for anything else."""
    shares: dict[str, float] = {}
    for part in parts:
        name, _, share = part.partition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            raise UserError(f"'{part}': expected NAME=SHARE, as in train=0.8") from None
        if not name or Path(name).name != name or shares[name] <= 0:
            raise UserError(f"'{part}': expected a plain name and a share over 0, as in train=0.8")
    if len(shares) != len(parts) or abs(sum(shares.values()) - 1) > 1e-6:
        raise UserError(f"{' '.join(parts)}: the names must differ, and the shares must sum to 1")
    return shares


def split_by_tag(tags: Tags, shares: Mapping[str, float], seed: int) -> dict[str, Tags]:
    """Iterative stratification (Sechidis et al. 2011).

    The rarest tag's pictures come first, each in the subset that lacks that tag most. So the rarest tag is in every subset if it
    has at least as many pictures as there are subsets, and the others nearly always are. No library is used: the one for it
    (iterative-stratification) has not been maintained since 2024."""
    rng = np.random.default_rng(seed)
    left = [sorted(tags)[i] for i in rng.permutation(len(tags))]
    names = list(shares)
    room = {name: shares[name] * len(tags) for name in names}
    counts = Counter(tag for entry in tags.values() for tag in entry)
    wanted = {name: {tag: shares[name] * n for tag, n in counts.items()} for name in names}
    found: dict[str, list[str]] = {name: [] for name in names}
    while left:
        remaining = Counter(tag for picture in left for tag in tags[picture])
        tag = min(remaining, key=lambda t: (remaining[t], t)) if remaining else None
        chosen = [picture for picture in left if tag is None or tag in tags[picture]]
        for picture in chosen:
            empty = [n for n in names if tag is not None and counts[tag] >= len(names) and not _has(found[n], tag, tags)]
            place = max(empty or names, key=lambda n: (wanted[n].get(tag, 0.0) if tag else 0.0, room[n]))
            found[place].append(picture)
            room[place] -= 1
            for other in tags[picture]:
                wanted[place][other] -= 1
        taken = set(chosen)
        left = [picture for picture in left if picture not in taken]
    return {name: {picture: tags[picture] for picture in sorted(part)} for name, part in found.items()}


def _has(part: Sequence[str], tag: str, tags: Tags) -> bool:
    return any(tag in tags[picture] for picture in part)


def _print(found: dict[str, Tags], classes: Sequence[str], out: Path) -> None:
    table = Table("tag", *(f"{name} ({len(part)})" for name, part in found.items()), title=str(out))
    for tag in classes:
        table.add_row(tag, *(str(sum(tag in entry for entry in part.values())) for part in found.values()))
    table.add_row("no tag", *(str(sum(not entry for entry in part.values())) for part in found.values()))
    Console().print(table)

"""What the finished runs of a comparison say, read from their folders or from small files, and the statistics over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mupvss.compare.cost import network_cost
from mupvss.compare.form import Spent
from mupvss.compare.plan import Entry
from mupvss.evaluation.completeness import condensed
from mupvss.files import read_json, write_json
from mupvss.stages.stage import finished


@dataclass(frozen=True)
class Record:
    """One finished run."""

    entry: Entry
    maps: str
    """The kind of map that became masks."""
    kinds: dict[str, dict[str, Any]]
    """Per kind of map what `seeds/kinds.json` holds, with its regions condensed under `completeness`."""
    train: dict[str, Any]
    """Of the training what `Spent` names: seconds, memory, and what it was computed in and on."""
    seeds: dict[str, Any]
    """The same of search and scoring."""
    cost: dict[str, float]
    curve: list[dict[str, Any]]
    curve_pictures: int = 0
    """How many the learning curve was asked for on; 0: it has none."""
    on_disk: bool = True
    """Whether the run's maps and masks are at hand, or only these figures."""


@dataclass(frozen=True)
class Row:
    """One method's one kind of map, over its seeds."""

    name: str
    kind: str
    records: list[Record]

    def values(self, key: str) -> list[float]:
        """One figure of the kind, per seed; runs without masks have none."""
        found = (record.kinds[self.kind].get(key) for record in self.records)
        return [value for value in found if value is not None]

    @property
    def own(self) -> bool:
        return self.kind == self.records[0].maps


def read_record(entry: Entry) -> Record | None:
    """None while the run is not finished, or while its folder holds one of other settings."""
    train, seeds, made_with = entry.run.folder("train"), entry.run.folder("seeds"), entry.identity
    if not finished(train, made_with.trained) or not finished(seeds, made_with.searched, made_with.truth):
        return None
    curve = _curve(entry)
    figures = read_json(seeds / "metrics.json")
    kinds = read_json(seeds / "kinds.json")
    for kind in kinds.values():
        kind["completeness"] = condensed(kind.pop("regions", []))
    return Record(
        entry,
        figures["maps"],
        kinds,
        _spent(read_json(train / "metrics.json")),
        _spent(figures),
        _cost(entry, train / "model.safetensors"),
        curve.get("points", []),
        curve.get("asked", 0),
    )


def _cost(entry: Entry, network: Path) -> dict[str, float]:
    path = entry.run.out / "cost.json"
    found = read_json(path) if path.is_file() else {}
    if found.get("of") != entry.identity.trained:
        found = {"of": entry.identity.trained, **network_cost(network)}
        write_json(path, found)
    return {key: found[key] for key in ("parameters", "gflops")}


def _curve(entry: Entry) -> dict[str, Any]:
    """Empty if there is none of this search, or one scored against other masks."""
    path = entry.run.folder("curve") / "metrics.json"
    found: dict[str, Any] = read_json(path) if path.is_file() else {}
    return found if found.get("of") == entry.identity.lines else {}


def _spent(metrics: dict[str, Any]) -> dict[str, Any]:
    return {key: metrics[key] for key in Spent.model_fields if key in metrics}


def rows(records: Sequence[Record]) -> list[Row]:
    """In the order of the configs, each method's kinds in the order of its config."""
    found: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        order = record.entry.run.config.search.kinds
        for kind in sorted(record.kinds, key=lambda k: order.index(k) if k in order else len(order)):
            found.setdefault((record.entry.name, kind), []).append(record)
    names = list(dict.fromkeys(record.entry.name for record in records))
    return sorted((Row(name, kind, members) for (name, kind), members in found.items()), key=lambda row: names.index(row.name))


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def spread(values: Sequence[float]) -> float | None:
    """Standard deviation over seeds (n - 1); None for one seed."""
    if len(values) < 2:
        return None
    centre = mean(values)
    return math.sqrt(sum((v - centre) ** 2 for v in values) / (len(values) - 1))


@dataclass(frozen=True)
class Difference:
    """A row less the reference, seed by seed."""

    mean: float
    error: float | None
    """Standard error of the mean; None for one pair."""
    pairs: int


def difference(row: Row, reference: Sequence[Row], key: str) -> Difference | None:
    """Paired by seed, against the reference's same kind of map if it has one, else against its own kind; None without a pair."""
    same = [other for other in reference if other.kind == row.kind] or [other for other in reference if other.own]
    if not same:
        return None
    theirs = {record.entry.seed: record.kinds[same[0].kind].get(key) for record in same[0].records}
    pairs = []
    for record in row.records:
        mine, other = record.kinds[row.kind].get(key), theirs.get(record.entry.seed)
        if mine is not None and other is not None:
            pairs.append(mine - other)
    if not pairs:
        return None
    deviation = spread(pairs)
    return Difference(mean(pairs), None if deviation is None else deviation / math.sqrt(len(pairs)), len(pairs))

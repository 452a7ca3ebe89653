"""Results of the finished runs of a comparison, read from their folders or from saved records, and statistics over seeds.

The figures of each finished run are kept in one small JSON file, FOLDER/CONFIG/seed-N-IDENTITY.json, so that a comparison can be
made over several days and computers. A record is used only while settings and pictures are those it was made with; records made
with others may lie beside it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, Field, FiniteFloat, ValidationError, model_validator
from torch.utils.flop_counter import FlopCounterMode

from mupvss.compare.plan import Entry
from mupvss.errors import DataError
from mupvss.evaluation.completeness import condensed
from mupvss.files import read_json, write_json
from mupvss.methods import find_method
from mupvss.methods.checkpoint import read_info
from mupvss.stages.run_folder import finished

Percent = Annotated[FiniteFloat, Field(ge=0, le=100)]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Amount = Annotated[FiniteFloat, Field(ge=0)]


class Strict(BaseModel, strict=True):
    """Base of the records: text is never converted to a number."""


class Scores(Strict):
    miou: Percent
    oracle: Percent


class Point(Strict, extra="allow"):
    """One point of the learning curve: image steps, and scores per kind of map."""

    __pydantic_extra__: dict[str, Scores]
    image_steps: Annotated[int, Field(ge=0)]


class Completeness(Strict):
    covered: Share | None
    body: Share | None
    groups: list[tuple[Share, Share | None, Share | None]]
    """Per group: size, covered, body."""


class Kind(Strict):
    """One kind of map. Without true masks it has no scores."""

    miou: Percent | None = None
    miou_oracle: Percent | None = None
    iou: list[Percent | None] | None = None
    iou_oracle: list[Percent | None] | None = None
    completeness: Completeness

    @model_validator(mode="after")
    def _all_or_none(self) -> Kind:
        if len({value is None for value in (self.miou, self.miou_oracle, self.iou, self.iou_oracle)}) > 1:
            raise ValueError("some of miou, miou_oracle, iou and iou_oracle are missing")
        return self

    @property
    def lengths(self) -> set[int]:
        """Lengths of the IoU lists, which have one entry for the background and one for each class."""
        return {len(values) for values in (self.iou, self.iou_oracle) if values is not None}


class Spent(Strict):
    seconds: Amount
    peak_mb: Amount
    precision: Literal["bf16", "fp32", "mixed"] | None = None
    """Precision of the computation; unknown for older records."""
    device: str | None = None
    """Device of the computation: cpu, a GPU's name, or mixed; unknown for older records."""
    gpu_peak_mb: Amount | None = None


class Cost(Strict):
    parameters: Amount
    gflops: Amount


class Figures(Strict):
    identity: list[str]
    maps: str
    kinds: Annotated[dict[str, Kind], Field(min_length=1)]
    train: Spent
    seeds: Spent
    cost: Cost
    curve: list[Point]
    curve_pictures: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _maps_are_there(self) -> Figures:
        if self.maps not in self.kinds:
            raise ValueError(f"its maps are '{self.maps}', its kinds {', '.join(self.kinds)}")
        return self

    def check_classes(self, count: int) -> None:
        """Raises ValueError unless every IoU list covers the background and `count` classes."""
        for name, kind in self.kinds.items():
            if not kind.lengths <= {count + 1}:
                raise ValueError(f"{name} has {sorted(kind.lengths)} entries of IoU; expected {count + 1}")


def network_cost(checkpoint: Path) -> dict[str, float]:
    """-> parameters, and gflops of one picture's forward pass; a multiplication and an addition count as two operations."""
    info = read_info(checkpoint)
    network = info.build().eval()
    counter = FlopCounterMode(display=False)
    side = info.model.image_size
    with torch.no_grad(), counter:
        network(torch.zeros(1, 3, side, side))
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "gflops": counter.get_total_flops() / 1e9,
    }


@dataclass(frozen=True)
class Record:
    """One finished run."""

    entry: Entry
    maps: str
    """The kind of map that became masks."""
    kinds: dict[str, dict[str, Any]]
    """Per kind of map, the content of `seeds/kinds.json`, with the regions condensed to `completeness`."""
    train: dict[str, Any]
    """The fields of `Spent` for the training: seconds, memory, precision and device."""
    seeds: dict[str, Any]
    """The same for search and scoring."""
    cost: dict[str, float]
    curve: list[dict[str, Any]]
    curve_pictures: int = 0
    """Number of pictures asked for in the learning curve; 0: no curve."""
    on_disk: bool = True
    """Whether the run's maps and masks are on this computer, or only these figures."""


@dataclass(frozen=True)
class Row:
    """One kind of map of one method, over its seeds."""

    name: str
    kind: str
    records: list[Record]

    def values(self, key: str) -> list[float]:
        """One figure of this kind, per seed; runs without true masks have none."""
        found = (record.kinds[self.kind].get(key) for record in self.records)
        return [value for value in found if value is not None]

    @property
    def title(self) -> str:
        """The kind in words."""
        offered = find_method(self.records[0].entry.run.config.method).offered()
        return offered[self.kind].title if self.kind in offered else self.kind

    @property
    def own(self) -> bool:
        return self.kind == self.records[0].maps


def read_record(entry: Entry) -> Record | None:
    """The record of a run. None if it is not finished, or if its folder holds a run with other settings."""
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
    """The learning curve; empty if there is none for this search, or if it was scored against other masks."""
    path = entry.run.folder("curve") / "metrics.json"
    found: dict[str, Any] = read_json(path) if path.is_file() else {}
    return found if found.get("of") == entry.identity.lines else {}


def _spent(metrics: dict[str, Any]) -> dict[str, Any]:
    return {key: metrics[key] for key in Spent.model_fields if key in metrics}


def rows(records: Sequence[Record]) -> list[Row]:
    """Rows in the order of the configs; each method's kinds in the order of its config."""
    found: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        order = record.entry.run.config.search.kinds or tuple(find_method(record.entry.run.config.method).offered())
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


STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""97.5 % quantiles of Student's t for 1 to 9 degrees of freedom."""


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Within which the mean over all seeds lies with 95 % (Student's t); None for one value, or more than ten, where the table
    ends."""
    deviation = spread(values)
    if deviation is None or len(values) - 2 >= len(STUDENT):
        return None
    half = STUDENT[len(values) - 2] * deviation / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half


@dataclass(frozen=True)
class Difference:
    """A row minus the reference, seed by seed."""

    mean: float
    error: float | None
    """Standard error of the mean; None for one pair."""
    pairs: int


def difference(row: Row, reference: Sequence[Row], key: str) -> Difference | None:
    """Difference paired by seed, from the reference's map of the same kind if it has one, else its own; None without a pair."""
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


KEPT = tuple(name for name in Figures.model_fields if name != "identity")


def known_record(folder: Path | None, entry: Entry) -> Record | None:
    """The record of the run on disk, else the saved one; a run on disk without a learning curve gets that of the saved record."""
    own, kept = read_record(entry), stored_record(folder, entry)
    if own is None or kept is None or own.curve:
        return own or kept
    return dataclasses.replace(own, curve=kept.curve, curve_pictures=kept.curve_pictures)


def stored_record(folder: Path | None, entry: Entry) -> Record | None:
    """The saved record. None if there is none for these settings; DataError for a file that is not a record."""
    if folder is None or not (path := _path(folder, entry)).is_file():
        return None
    figures = read_figures(path, entry.identity.lines, entry.identity.classes)
    return None if figures is None else Record(entry, **figures, on_disk=False)


def read_figures(path: Path, made_with: list[str], classes: int) -> dict[str, Any] | None:
    """The fields in KEPT; None if the file has another identity. DataError for a file that is not a record."""
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
    """Records with this config's name and seed that were made with other settings or pictures."""
    found = (folder / entry.name).glob(f"seed-{entry.seed}-*.json")
    return sorted(path for path in found if path != _path(folder, entry))


def _path(folder: Path, entry: Entry) -> Path:
    return folder / entry.name / f"seed-{entry.seed}-{entry.identity.short}.json"

"""The paper's picture pages, drawn from the finished runs (Figures 1, 5, 6 and 7), and plots with one line per method.

Maps and masks are read from the runs' folders. Masks use the threshold chosen without masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mupvss.compare.results import Record, Row, mean
from mupvss.data.masks import read_label_image
from mupvss.data.sample import Dataset, Sample, evenly
from mupvss.files import atomic_path
from mupvss.methods import find_method
from mupvss.methods.mupvss import MUPVSS, MupvssOptions
from mupvss.report.pictures import grid, heat, overlay
from mupvss.report.plot import Series, plot
from mupvss.search.seeds import read_seeds, seed_path


def draw_all(records: Sequence[Record], dataset: Dataset, count: int, folder: Path) -> list[tuple[str, str]]:
    """Writes the figures into `folder`; -> (title, file name) of each. records: one per config, of one seed."""
    shown = _several(dataset, count)
    if not shown or not records:
        return []
    figures = [
        ("Three families on one picture", "families", _families(records, shown[0])),
        ("Maps side by side", "maps", _side_by_side(records, shown, _map)),
        ("Masks side by side, threshold chosen without masks", "masks", _side_by_side(records, shown, _mask)),
        ("One class over several pictures", "one-class", _one_class(records, dataset, count)),
    ]
    written = []
    for title, name, picture in figures:
        if picture is not None:
            with atomic_path(folder / f"{name}.png") as temporary:
                picture.save(temporary)
            written.append((title, f"{name}.png"))
    return written


def _families(records: Sequence[Record], sample: Sample) -> Image.Image | None:
    """Figure 1: where a CNN's CAM, a transformer's class attention and the prototype search look."""
    families: dict[str, Record] = {}
    for record in records:
        families.setdefault(_family(record), record)
    if len(families) < 2:
        return None
    image = sample.open_image()
    header = [", ".join(sorted(sample.tags)), *(f"{family}: {record.entry.name}" for family, record in families.items())]
    return grid(header, [("", [image, *(_map(record, sample, image) for record in families.values())])], height=220)


def _family(record: Record) -> str:
    return find_method(record.entry.run.config.method).family


def _side_by_side(records: Sequence[Record], samples: Sequence[Sample], draw) -> Image.Image:  # type: ignore[no-untyped-def]
    """Figures 5 and 6: one row per picture, one column per method, beside the true mask."""
    rows = []
    for sample in samples:
        image = sample.open_image()
        truth = image if sample.open_mask is None else overlay(image, sample.open_mask())
        rows.append(("", [image, truth, *(draw(record, sample, image) for record in records)]))
    return grid(["picture", "truth", *(record.entry.name for record in records)], rows)


def _one_class(records: Sequence[Record], dataset: Dataset, count: int) -> Image.Image | None:
    """Figure 7: the most frequent class over several pictures, with the prototype losses and, if a config lacks them, without."""
    searching = [record for record in records if _family(record) == MUPVSS.family]
    full = [record for record in searching if _has_prototype_losses(record)]
    without = [record for record in searching if not _has_prototype_losses(record)]
    if not full:
        return None
    name = max(dataset.classes, key=lambda c: sum(sample.tags == {c} for sample in dataset.samples))
    alone = [sample for sample in dataset.samples if sample.tags == {name}]
    samples = evenly(alone, count)
    images = [sample.open_image() for sample in samples]
    rows = [(name, images)]
    for record in (full[0], *without[:1]):
        rows.append((record.entry.name, [_map(record, s, i) for s, i in zip(samples, images, strict=True)]))
    return grid([""] * len(samples), rows) if samples else None


def _has_prototype_losses(record: Record) -> bool:
    options = record.entry.run.config.options
    return not isinstance(options, MupvssOptions) or options.ccp > 0 or options.cip > 0 or options.p2p > 0


def _map(record: Record, sample: Sample, image: Image.Image) -> Image.Image:
    path = seed_path(record.entry.run.folder("seeds"), record.maps, sample.name)
    return heat(image, read_seeds(path).best()[0])


def _mask(record: Record, sample: Sample, image: Image.Image) -> Image.Image:
    labels: np.ndarray = read_label_image(record.entry.run.folder("seeds") / "masks" / f"{sample.name}.png")
    return overlay(image, labels)


def _several(dataset: Dataset, count: int) -> Sequence[Sample]:
    """Tagged pictures at even intervals; never chosen by how they look."""
    return evenly([sample for sample in dataset.samples if sample.tags], count)


def completeness_plot(rows: Sequence[Row], body: bool = False) -> str:
    """Share of an object covered (oracle threshold) against its share of the picture, in groups of equal number, mean over seeds.

    body: count only the object without its telling part.
    """
    series = []
    for row in rows:
        # The groups contain the same objects for every seed.
        groups = zip(*(record.kinds[row.kind].get("completeness", {}).get("groups", []) for record in row.records), strict=False)
        points = []
        for group in groups:
            shares = [found[2 if body else 1] for found in group]
            if None not in shares:
                points.append((100 * mean([found[0] for found in group]), 100 * mean(shares)))
        if points:
            series.append(Series(row.name if row.own else f"{row.name}: {row.title}", points))
    label = "share of the plain body covered, %" if body else "share covered, %"
    return plot(series, "size of the object, % of the picture", label, (0, 100))


def learning_curve(records: Sequence[Record]) -> str:
    """Seed mIoU at the oracle threshold against image steps, of each method's own maps, mean over the seeds that have a curve."""
    values: dict[str, dict[int, list[float]]] = {}
    for record in records:
        for point in record.curve:
            if record.maps in point:
                values.setdefault(record.entry.name, {}).setdefault(point["image_steps"], []).append(point[record.maps]["oracle"])
    series = [Series(name, [(steps, mean(found)) for steps, found in points.items()]) for name, points in values.items()]
    return plot(series, "image steps", "mIoU, oracle threshold")

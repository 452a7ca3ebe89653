"""Stage `report`: one HTML page with pictures, curves and tables of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mupvss.config.load import dump_config
from mupvss.config.run import RunConfig
from mupvss.data.masks import label_names, read_label_image, voc_palette
from mupvss.data.sample import Dataset, Sample, evenly
from mupvss.files import read_json, write_text
from mupvss.methods.checkpoint import read_info
from mupvss.options import Section
from mupvss.predict.run import CALIBRATION, FinishedRun
from mupvss.report.html import page, picture, table
from mupvss.report.pictures import heat, inline, overlay
from mupvss.report.plot import Series, curve, plot, read_log
from mupvss.runtime.processes import processes
from mupvss.search.maps import Map
from mupvss.stages.run_folder import WARNED, Metrics, Run, Stage, Work

PICTURES = 16
LARGE, TALL, LOOKED_AT = 6, 220, 200
"""At the top: pictures of either kind, their height in pixels, and the number of pictures from which tagged ones are chosen."""
MOST_NAMED = 8
TOO_GOOD = ", which is too good, since it was not tested on other pictures (<code>data.val_tags</code>)"
SHOWN = ("train", "seeds", "affinity", "masks", "crossfit", "segment", "val", "cam_train", "cam")
"""Stages whose figures and times the report shows."""
MAPS_SHOWN = 3
"""Number of kinds of maps that are shown besides the one that became the seed mask."""


class ReportInputs(Section):
    """What the page shows of the config itself."""

    config: str


def report_inputs(config: RunConfig) -> ReportInputs:
    return ReportInputs(config=dump_config(config))


def report(work: Work) -> Metrics:
    """-> index.html."""
    if not processes().main:
        return {}
    run, dataset = work.run, work.dataset
    metrics = {stage: FinishedRun(run.folder(stage).parent).metrics(stage) for stage in SHOWN}
    network = run.checkpoint("train")
    offered = read_info(network).method.offered() if network.is_file() else {}
    sections = [
        ("", f"<p>{_summary(metrics, dataset)}</p>" + _warnings(metrics) + _gallery(work)),
        ("Figures", _headline(metrics, offered)),
        ("Maps and masks", _pictures(run, dataset, metrics["seeds"].get("maps", ""), offered)),
        ("Per class", _classes(dataset, metrics["seeds"])),
        ("Training", _curves(run)),
        ("Scores of tags", _reliability(run)),
        ("Config", f"<pre>{escape(work.inputs.config)}</pre>"),
    ]
    write_text(work.folder / "index.html", page(f"MuP-VSS: {run.out.resolve().name}", sections))
    return {"pictures": min(PICTURES, len(dataset.samples))}


def _summary(metrics: dict[str, dict[str, Any]], dataset: Dataset) -> str:
    """What happened, in two sentences."""
    classes = [escape(name) for name in dataset.classes]
    named = ", ".join(classes) if len(classes) <= MOST_NAMED else f"{len(classes)} classes"
    found = f"From tags alone, without one outline, a network learned where each of these is: {named}"
    known = (metrics[stage]["miou"] for stage in ("crossfit", "masks", "seeds") if metrics[stage].get("miou") is not None)
    masks, val = next(known, None), metrics["val"]
    if masks is not None:
        found += f"; the masks that it made of the {len(dataset.samples):,} tagged pictures reach <b>{masks:.1f}</b> mIoU"
    if "miou" not in val:
        return f"{found}."
    which = "training pictures that have a true mask" if val.get("learned") else "pictures that it has never seen"
    seen = f"on {val['pictures']:,} {which}, without their tags, it reaches <b>{val['miou']:.1f}</b>"
    return f"{found}. A segmentation network learned from those masks: {seen}{TOO_GOOD if val.get('learned') else ''}."


def _warnings(metrics: dict[str, dict[str, Any]]) -> str:
    found = [text for stage in WARNED for text in metrics[stage].get("warnings", [])]
    return "".join(f"<p><b>Look at the masks:</b> {escape(text)}.</p>" for text in found)


def _gallery(work: Work) -> str:
    """Large pictures: first unseen ones with the masks of the segmentation network, then tagged ones with their pseudo-masks."""
    found = FinishedRun(work.run.out)
    parts: list[tuple[str, Dataset, Callable[[str], Path | None]]] = []
    if work.further is not None and (network := found.val_masks) is not None:
        which = "training" if found.metrics("val").get("learned") else "unseen"
        parts.append((f"Masks of {which} pictures, by the segmentation network, without tags", work.further, network))
    parts.append(("Masks of tagged pictures, that it learned from", work.dataset, found.mask))
    text = ""
    for title, dataset, mask_of in parts:
        tagged = [sample for sample in evenly(dataset.samples, LOOKED_AT) if sample.tags]
        figures = "".join(_large(sample, mask_of(sample.name)) for sample in evenly(tagged, LARGE))
        if figures:
            text += f'<h3>{title}</h3><div class="gallery">{figures}</div>'
    return f"<p>{_legend(work.dataset.classes)}</p>{text}" if text else ""


def _large(sample: Sample, mask: Path | None) -> str:
    """The picture, its mask and, if it is known, the true mask; empty if there is no mask."""
    if mask is None:
        return ""
    image = sample.open_image()
    shown = [("picture", image), ("mask", overlay(image, read_label_image(mask)))]
    if sample.open_mask is not None:
        shown.append(("truth", overlay(image, sample.open_mask())))
    pictures = "".join(picture(inline(part, TALL), name) for name, part in shown)
    return f"<figure>{pictures}<figcaption>{', '.join(name for name, _ in shown)}</figcaption></figure>"


def _legend(classes: Sequence[str]) -> str:
    colours = voc_palette()
    return " ".join(f'<span class="key">{_swatch(colours[i])}{escape(name)}</span>' for i, name in enumerate(classes, 1))


def _swatch(colour: np.ndarray) -> str:
    return f'<span class="swatch" style="background:rgb{tuple(int(value) for value in colour)}"></span>'


def _headline(metrics: dict[str, dict[str, Any]], offered: Mapping[str, Map]) -> str:
    seeds, cam = metrics["seeds"], metrics["cam"]
    others = [kind for kind in offered if kind != seeds.get("maps")]
    tested = "training pictures (too good)" if metrics["val"].get("learned") else "<i>val</i>"
    rows = [
        ("<b>Seeds</b>, threshold chosen without masks", seeds.get("miou")),
        ("Seeds, <i>oracle</i> threshold", seeds.get("miou_oracle")),
        *((f"To compare with: {name}", value) for name, value in seeds.get("trivial", {}).items()),
        *((f"Other maps: {escape(offered[kind].title)}, <i>oracle</i>", seeds.get(f"{kind}_oracle")) for kind in others),
        ("Pseudo-masks: seeds + affinity + dense CRF", metrics["masks"].get("miou")),
        ("Masks by segmentation networks that had not learned them", metrics["crossfit"].get("miou")),
        (f"<b>Segmentation network</b> on {tested}, without tags", metrics["val"].get("miou")),
        ("The same at one scale, without mirror and CRF", metrics["val"].get("miou_single")),
        ("Plain CAM, <i>oracle</i>", cam.get("oracle")),
        ("Plain CAM, spread by attention, <i>oracle</i>", cam.get("spread_oracle")),
    ]
    shown = [(name, f"{value:.1f}") for name, value in rows if value is not None]
    times = [(stage, f"{m['seconds']:.0f} s", _memory(m)) for stage, m in metrics.items() if "seconds" in m]
    note = "<p><i>Oracle</i>: the threshold was chosen with the masks. Everything else saw picture tags only.</p>"
    scored = table(("", "mIoU"), shown) + note if shown else "<p>These pictures have no masks to score against.</p>"
    return scored + table(("stage", "time", "memory"), times)


def _memory(metrics: dict[str, Any]) -> str:
    on_gpu = metrics.get("gpu_peak_mb")
    return f"{metrics['peak_mb']:.0f} MB" + ("" if on_gpu is None else f", {on_gpu:.0f} MB of the GPU")


def _pictures(run: Run, dataset: Dataset, maps: str, offered: Mapping[str, Map]) -> str:
    """maps: the kind that became the seed masks, which is shown last."""
    tagged = [sample for sample in dataset.samples if sample.tags]
    unrefined = [kind for kind, entry in offered.items() if not entry.refined and entry.joins is None and kind != maps]
    columns = [
        ("plain CAM, spread", "cam", "cam_spread"),
        *((offered[kind].title, "seeds", kind) for kind in unrefined[:MAPS_SHOWN]),
    ]
    columns.append((offered[maps].title if maps in offered else maps, "seeds", maps))
    header = ["picture", "tags", "truth", *(title for title, _, _ in columns), *_masks(FinishedRun(run.out))]
    return table(header, [_row(run, dataset, sample, columns) for sample in evenly(tagged, PICTURES)], "pictures")


def _masks(found: FinishedRun) -> dict[str, Callable[[str], Path | None]]:
    """The kinds of masks that are shown, by title."""
    kinds: dict[str, Callable[[str], Path | None]] = {"seed mask": found.seed_mask, "pseudo-mask": found.pseudo_mask}
    if found.metrics("crossfit"):
        kinds["by another network"] = found.crossfit_mask
    return kinds


def _row(run: Run, dataset: Dataset, sample: Sample, columns: Sequence[tuple[str, str, str]]) -> list[str]:
    image = sample.open_image()
    truth = sample.open_mask() if sample.open_mask else None
    colours = voc_palette()
    names = [f"{_swatch(colours[i])}{escape(name)}" for i, name in enumerate(dataset.classes, 1) if name in sample.tags]
    cells = [_show(image, sample.name), "<br>".join(names), "" if truth is None else _show(overlay(image, truth), "truth")]
    found = FinishedRun(run.out)
    for title, stage, kind in columns:
        seeds = found.seeds(sample.name, kind, stage)
        cells.append("" if seeds is None else _show(heat(image, seeds.best()[0]), title))
    for title, mask_of in _masks(found).items():
        path = mask_of(sample.name)
        cells.append("" if path is None else _show(overlay(image, read_label_image(path)), title))
    return cells


def _show(image: Image.Image, text: str) -> str:
    return picture(inline(image), text)


def _classes(dataset: Dataset, metrics: dict[str, Any]) -> str:
    if "iou" not in metrics:
        return ""
    columns = [list(metrics["iou"].values()), *(metrics.get("per_class", {}).get(key, []) for key in ("precision", "recall"))]
    columns = [column or [None] * (len(dataset.classes) + 1) for column in columns]
    rows = [
        [escape(name), *("-" if column[i] is None else f"{column[i]:.1f}" for column in columns)]
        for i, name in enumerate(label_names(dataset.classes))
    ]
    return table(("class", "IoU", "precision", "recall"), rows)


def _curves(run: Run) -> str:
    log = read_log(run.folder("train") / "log.jsonl")
    names = [name for name in (log[0] if log else {}) if name not in ("step", "images_per_s")]
    return f'<div class="curves">{"".join(curve(log, name) for name in names)}</div>'


NETWORKS = {"segment": "segmentation network", "train": "classifier"}


def _reliability(run: Run) -> str:
    """Diagrams: of the tags with a score, how many are right."""
    path = run.folder("val") / CALIBRATION
    found = read_json(path) if path.is_file() else {}
    diagrams = []
    for name, title in NETWORKS.items():
        if name in found:
            own = found[name]
            lines = [Series("as it should be", [(0, 0), (1, 1)])]
            lines += [Series(text, [(s, share) for s, share, _ in own[key]["bins"]]) for key, text in CALIBRATED.items()]
            drawn = plot(lines, "score of a tag", "share of the pictures that have it", (0, 1))
            before, after = (f"{own[key]['error']:.1f}" for key in CALIBRATED)
            said = (
                f"<b>{title}</b>, {own['pictures']} pictures: scores are off by {before} points on average as the network gives "
                f"them, and by {after} calibrated. For this diagram each half of the pictures was calibrated by the other half."
            )
            diagrams.append(f"<p>{said}</p>{drawn}")
    return "".join(diagrams) or "<p>There were too few further pictures to test the scores of tags on.</p>"


CALIBRATED = {"before": "as given", "after": "calibrated"}


REPORT = Stage(
    "report",
    report_inputs,
    report,
    after=SHOWN,
    scores=True,
    revision=3,
    further=lambda run: "val" if FinishedRun(run.out).val_masks is not None else None,
    does="writes the page with pictures and figures",
)

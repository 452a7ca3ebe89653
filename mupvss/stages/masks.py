"""Stage `masks`: pseudo-masks from seeds, through affinity and the dense CRF, with a confidence per pixel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from mupvss.config.run import RunConfig
from mupvss.data.masks import write_grey_png, write_palette_png
from mupvss.data.sample import Dataset
from mupvss.data.summary import print_doubts
from mupvss.evaluation.confusion import confusion_matrix, scores
from mupvss.evaluation.sweep import BINS, best_threshold, threshold_histogram
from mupvss.files import read_json
from mupvss.masks.affinity_networks import load_affinity
from mupvss.masks.pseudo import prepare_crf, pseudo_mask
from mupvss.masks.random_walk import walked
from mupvss.methods.checkpoint import read_info
from mupvss.options import MasksConfig, Section
from mupvss.predict.run import FinishedRun
from mupvss.runtime.log import console, each, note_if_slow
from mupvss.runtime.processes import processes
from mupvss.search.seeds import Seeds, read_seeds, read_seeds_for, seed_path, write_seeds
from mupvss.search.threshold import NO_BACKGROUND, Rule
from mupvss.stages.run_folder import Metrics, Stage, Work, fingerprint, reuse, stage_fingerprint
from mupvss.stages.scoring import read_mask, score_maps, taken_away
from mupvss.stages.sums import Sums

KIND = "walked"
CRF_LOSES = (
    "the dense CRF takes away {}. If these are thin or faint things, try masks.crf = 'none', which leaves the masks as the maps "
    "have them"
)


class MasksInputs(Section):
    """What pseudo-masks depend on besides seeds and affinity network."""

    affinity: Section
    """Only its kind is read here; its other options belong to the affinity network."""
    masks: MasksConfig


class AffinityKind(Section):
    kind: str


def masks_inputs(config: RunConfig) -> MasksInputs:
    return MasksInputs.model_construct(affinity=AffinityKind(kind=config.affinity.kind), masks=config.masks)


def masks(work: Work) -> Metrics:
    """-> full/NAME.png (every pixel), labels/NAME.png (255 where unsure), confidence/NAME.png (grey, 255 for 1)."""
    seeds = work.run.folder("seeds")
    before = read_json(seeds / "metrics.json")
    learned = FinishedRun(work.run.out).metrics("affinity").get("learned", True)
    if work.inputs.affinity.kind == "none" or not learned:  # the maps of the seeds are used unchanged, with their scores
        after = {"threshold": before["threshold"], "miou": before.get("miou"), "miou_oracle": before.get("miou_oracle")}
        metrics = _write(work.inputs.masks, work.dataset, work.folder, seeds / "maps" / before["maps"], before["threshold"])
    else:
        if processes().main:
            reuse(work.folder, "maps", fingerprint(*(stage_fingerprint(work.run.folder(name)) for name in ("seeds", "affinity"))))
        processes().wait()
        walk_all(work, before["maps"])
        rule: Rule = found_by if (found_by := before.get("threshold_rule")) in ("middle", "groups") else "otsu"
        found = score_maps(work.dataset, work.folder, KIND, before["threshold"] != NO_BACKGROUND, rule)
        after = {"threshold": found.threshold, "miou": found.plain and found.plain.miou}
        after["miou_oracle"] = found.oracle and found.oracle.miou
        metrics = _write(work.inputs.masks, work.dataset, work.folder, work.folder / "maps" / KIND, found.threshold)
    metrics["threshold"] = after["threshold"]
    if after["miou"] is not None:
        metrics |= {"affinity_miou": after["miou"], "affinity_oracle": after["miou_oracle"]}
        metrics |= {"seeds_miou": before["miou"], "seeds_oracle": before["miou_oracle"]}
    return metrics


def walk_all(work: Work, kind: str) -> None:
    """-> maps/walked/NAME.npz; those that already exist are kept."""
    seeds, walk = work.run.folder("seeds"), _walker(work)
    for sample in each("affinity walk", work.dataset.samples):
        path = seed_path(work.folder, KIND, sample.name)
        if not path.is_file():
            image = sample.open_image()
            write_seeds(path, walk(read_seeds_for(image, sample, seed_path(seeds, kind, sample.name)), image))


def _walker(work: Work) -> Callable[[Seeds, Image.Image], Seeds]:
    classifier, device = work.run.checkpoint("train"), work.device
    network = load_affinity(work.run.checkpoint("affinity"), classifier).to(device).eval()
    multiple = read_info(classifier).model.patch_size
    return lambda seeds, image: walked(seeds, image, network, multiple, device)


def _write(config: MasksConfig, dataset: Dataset, folder: Path, maps: Path, background: float) -> Metrics:
    size = len(dataset.classes) + 1
    sums = Sums(
        folder,
        matrix=np.zeros((size, size), np.int64),
        histogram=np.zeros((BINS + 1, size, size), np.int64),
        drawn=np.zeros((2, size)),
    )
    with note_if_slow("masks: compiles the dense CRF for this processor; this takes up to a minute, and only the first time"):
        prepare_crf(config, (len(sample.tags) for sample in dataset.samples), background)
    for sample in sums.over("masks", dataset):
        seeds = read_seeds(maps / f"{sample.name}.npz")
        image = np.array(sample.open_image())
        refined, labels = pseudo_mask(seeds, image, background, config)
        write_mask(folder, sample.name, refined.labels(), labels, refined.confidence())
        sums.rows.append((labels == 255).mean())
        sums["drawn"][:, [0, *seeds.ids]] += refined.drawn
        if sample.open_mask is not None:
            truth = read_mask(sample, seeds.size)
            sums["matrix"][:] += confusion_matrix(refined.labels(), truth, size)
            sums["histogram"][:] += threshold_histogram(*refined.best(), truth, size)
    team = processes()
    matrix, histogram = team.total(sums["matrix"]), team.total(sums["histogram"])
    warnings = list(taken_away(team.total(sums["drawn"]), dataset.classes, CRF_LOSES))
    print_doubts(warnings, console)
    metrics: Metrics = {
        "unsure_percent": 100 * float(sum(team.in_order(sums.rows))) / max(1, len(dataset.samples)),
        "warnings": warnings,
    }
    if histogram.any():
        # The oracle moves the background's probability after the CRF, without running it again.
        metrics |= {"miou": scores(matrix).miou, "miou_oracle": max(scores(matrix).miou, best_threshold(histogram)[1].miou)}
    return metrics


def write_mask(folder: Path, name: str, full: np.ndarray, labels: np.ndarray, confidence: np.ndarray) -> None:
    """The three files of a picture, each (H, W) uint8."""
    write_palette_png(folder / "full" / f"{name}.png", full)
    write_palette_png(folder / "labels" / f"{name}.png", labels)
    write_grey_png(folder / "confidence" / f"{name}.png", confidence)


MASKS = Stage(
    "masks",
    masks_inputs,
    masks,
    after=("seeds", "affinity"),
    scores=True,
    does="draws the mask of each of {pictures} to its edges",
)

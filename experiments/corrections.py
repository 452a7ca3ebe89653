"""Measures what corrections in the studio are worth: true masks are stored as if a person had painted them, and the segmentation
network is trained again.

    python experiments/corrections.py runs/animals-0 runs/animals-1 --counts 0 30 100

Each run must have the stages train, seeds, affinity and masks. The network is scored on its val split (no tags, one scale),
which must not be part of the training set. The corrected pictures are the most doubtful ones, random ones, or those that the
studio calls "next" (doubtful, different from each other).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path

import numpy as np

from mupvss.config.load import load_config
from mupvss.data.decisions import Decisions, State
from mupvss.data.sample import Dataset
from mupvss.data.sources import load_dataset
from mupvss.doctor.masks import mask_doubt
from mupvss.files import file_state
from mupvss.predict.run import FinishedRun
from mupvss.stages.run import run_one
from mupvss.stages.run_folder import STUDIO, Run
from mupvss.studio.next_pictures import most_telling, tiny_copy

SHARED = ("train", "seeds", "affinity", "masks")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--counts", nargs="+", type=int, default=[0, 30, 100])
    parser.add_argument("--orders", nargs="+", default=["doubt", "random", "next"], choices=["doubt", "random", "next"])
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    for run in given.runs:
        for count in given.counts:
            for order in given.orders if count else ["none"]:
                print(json.dumps(corrected(run, count, order, given.threads)), flush=True)


def corrected(run: Path, count: int, order: str, threads: int) -> dict[str, object]:
    """The figures of a run with `count` corrected masks, in a folder beside it."""
    out = run.with_name(f"{run.name}-{order}-{count}")
    for stage in SHARED:
        if not (out / stage).is_dir():
            shutil.copytree(run / stage, out / stage, copy_function=os.link)
    config = load_config(run / "masks" / "config.toml")
    config = config.model_copy(update={"segment": config.segment.model_copy(update={"crf": "none", "scales": (1.0,)})})
    config = config.model_copy(update={"threads": threads, "workers": 0})
    dataset = load_dataset(config.data, "seeds", config.limit)
    chosen = chosen_pictures(run, dataset, count, order, config.seed)
    play_in(dataset, chosen, out / STUDIO)
    before = np.mean([seed_iou(run, dataset, place) for place in chosen]) if chosen else None
    for stage in ("segment", "val"):
        run_one(Run(config, out), stage)
    val = FinishedRun(out).metrics("val")
    return {
        "run": run.name,
        "corrected": len(chosen),
        "order": order,
        "val_miou": round(val["miou_single"], 2),
        "val_pictures": val["pictures"],
        "their_iou_before": None if before is None else round(float(before), 1),
        "seconds": round(FinishedRun(out).metrics("segment")["seconds"]),
    }


def chosen_pictures(run: Path, dataset: Dataset, count: int, order: str, seed: int) -> list[int]:
    """Places of the pictures to correct; only those that have a true mask."""
    finished = FinishedRun(run)
    places = [place for place, sample in enumerate(dataset.samples) if sample.open_mask is not None]
    if order == "random":
        return np.random.default_rng([seed, 5]).permutation(places)[:count].tolist()
    doubts = []
    for place in places:
        seeds = finished.seeds(dataset.samples[place].name)
        assert seeds is not None
        assert finished.threshold is not None
        doubts.append(mask_doubt(place, seeds, finished.threshold).doubt)
    if order == "next":
        copies = np.stack([tiny_copy(dataset.samples[place].open_image()) for place in places])
        return [places[i] for i in most_telling([doubt + 0.05 for doubt in doubts], copies, count)]
    return [places[i] for i in np.argsort([-doubt for doubt in doubts], kind="stable")[:count]]


def play_in(dataset: Dataset, chosen: list[int], folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    decisions = Decisions(folder)
    for place in chosen:
        sample = dataset.samples[place]
        assert sample.open_mask is not None
        tags = tuple(sorted(sample.tags))
        state, content = State("accepted", tags, True), file_state(sample.origin)
        decisions.write(sample.name, State("open", tags, False), state, sample.open_mask(), content)


def seed_iou(run: Path, dataset: Dataset, place: int) -> float:
    """Mean IoU, in percent, over the classes of one picture's pseudo-mask and its true mask."""
    from mupvss.data.masks import read_label_image

    sample = dataset.samples[place]
    path = FinishedRun(run).pseudo_mask(sample.name)
    assert path is not None
    assert sample.open_mask is not None
    found, truth = read_label_image(path), sample.open_mask()
    known = truth != 255
    classes = set(np.unique(found[known]).tolist()) | set(np.unique(truth[known]).tolist())
    shares = [
        ((found == c) & (truth == c) & known).sum() / max(1, (((found == c) | (truth == c)) & known).sum()) for c in classes - {0}
    ]
    return 100 * float(np.mean(shares)) if shares else 100.0


if __name__ == "__main__":
    main()

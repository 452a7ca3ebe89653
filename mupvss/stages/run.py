"""The whole run: its stages in order, which pass on their results through their folders."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import Any

from mupvss.config.run import RunConfig
from mupvss.crf import PRESETS
from mupvss.data.sample import Dataset
from mupvss.data.sources import Purpose, load_dataset
from mupvss.data.summary import print_doubts, print_summary, seen_before
from mupvss.errors import ConfigError
from mupvss.methods import find_method
from mupvss.options import FolderData, ScenesData
from mupvss.runtime.device import prepare
from mupvss.runtime.log import console
from mupvss.search.given import GivenSeeds
from mupvss.search.maps import asked_kinds, chosen_kind
from mupvss.stages.affinity import AFFINITY
from mupvss.stages.crossfit import CROSSFIT
from mupvss.stages.masks import MASKS
from mupvss.stages.report import REPORT
from mupvss.stages.run_folder import (
    WARNED,
    Metrics,
    Run,
    Stage,
    alone_in,
    dataset_identity,
    gather_metrics,
    pictures_of,
    run_stage,
    set_aside_unasked,
    up_to_date,
)
from mupvss.stages.seeds import CAM, SEEDS
from mupvss.stages.segment import SEGMENT, VAL
from mupvss.stages.train import CAM_TRAIN, TRAIN

STAGES: dict[str, Stage] = {
    stage.name: stage for stage in (TRAIN, SEEDS, AFFINITY, MASKS, CROSSFIT, SEGMENT, VAL, CAM_TRAIN, CAM, REPORT)
}
SHORT = 20.0
"""Seconds; stages that take less say nothing about the speed of the computer."""
BASELINE, PLAIN = ("cam_train", "cam"), ("vit-cam", "cnn-cam")
"""The stages of the plain CAM, and the methods that are a plain CAM themselves."""


def run_all(run: Run, expected: Mapping[str, float] | None = None) -> Metrics:
    """Runs every stage in turn, `crossfit` and those of the plain CAM only if they are asked for; returns the flat metrics.

    expected: seconds that stages will take. After each stage the time left is printed, corrected by the time that it really took.
    """
    with alone_in(run.out):
        return _run_all(run, dict(expected or {}))


def _run_all(run: Run, left: dict[str, float]) -> Metrics:
    tell_pictures(run)
    if (given := run.config.search.given) is not None and not (run.folder("seeds") / "metrics.json").is_file():
        GivenSeeds(given, pictures_of(run, "seeds"))  # what is wrong with them is said before anything is trained
    for name in STAGES:
        if asked_for(name, run.config):
            begin = time.monotonic()
            run_one(run, name)
            tell_time_left(left, name, time.monotonic() - begin)
        else:
            set_aside_unasked(run, name)
    metrics = gather_metrics(run)
    print_headline(run, metrics)
    return metrics


def asked_for(stage: str, config: RunConfig) -> bool:
    """Whether a whole run has this stage."""
    if stage in BASELINE:
        return config.baseline and config.method not in PLAIN
    return stage != "crossfit" or bool(config.crossfit.folds)


def tell_time_left(left: dict[str, float], stage: str, seconds: float) -> None:
    """Prints the time left after a stage that took `seconds`.

    left: expected seconds of the remaining stages. It is scaled in place, since a computer that is busy usually stays so.
    """
    planned = left.pop(stage, 0.0)
    if planned > SHORT and seconds > SHORT:
        for name in left:
            left[name] *= seconds / planned
    if sum(left.values()) > SHORT:
        console.print(f"about {max(1, round(sum(left.values()) / 60))} min left in all", highlight=False)


def tell_pictures(run: Run) -> None:
    """Prints a summary of the pictures and tags; nothing for drawn scenes, which would have to be drawn for it."""
    data = run.config.data
    if not isinstance(data, ScenesData):
        dataset = pictures_of(run, "train")
        print_summary(dataset, console, counts=False)
        if isinstance(data, FolderData) and data.val_tags is not None:
            print_doubts(seen_before(dataset, load_dataset(data, "val")), console)


def run_one(run: Run, name: str) -> Metrics:
    check_names(run.config)
    if not run.config.crossfit.folds:
        if name == "crossfit":
            raise ConfigError("crossfit.folds is 0, so no stage would use these masks; set crossfit.folds = 2")
        if name == "segment":
            set_aside_unasked(run, "crossfit")
    prepare(run.config.seed, run.config.threads)
    metrics = run_stage(STAGES[name], run)
    gather_metrics(run)
    return metrics


def run_alone(run: Run, name: str) -> Metrics:
    """Runs one stage. What it builds on stays as it is, even if that was made under other settings; this is said."""
    with alone_in(run.out):
        return _run_alone(run, name)


def _run_alone(run: Run, name: str) -> Metrics:
    if old := outdated(run, name):
        was, builds, it = ("were", "they build", "them") if len(old) > 1 else ("was", "it builds", "it")
        console.print(
            f"[yellow]{name} uses the results of {' and '.join(old)}, which {was} made with other settings or pictures, or "
            f"before a stage that {builds} on; `mupvss run` makes {it} again[/yellow]",
            highlight=False,
            soft_wrap=True,
        )
    return run_one(run, name)


def outdated(run: Run, name: str) -> list[str]:
    """The finished stages on which a stage builds, and which a whole run would make again, in order."""

    @functools.cache
    def pictures(purpose: Purpose) -> tuple[Dataset, list[Any]]:
        dataset = pictures_of(run, purpose)
        return dataset, dataset_identity(dataset)

    old: list[str] = []
    for below in stages_below(name, run.config):
        stage = STAGES[below]
        built_on = (*stage.after, *stage.also_after(run.config))
        done = (run.folder(below) / "metrics.json").is_file() and asked_for(below, run.config)
        if done and (set(built_on) & set(old) or not up_to_date(stage, run, *pictures(stage.pictures))):
            old.append(below)
    return old


def stages_below(name: str, config: RunConfig) -> list[str]:
    """The stages on which a stage builds, and on which those build, in the order of a run."""
    found: set[str] = set()
    left = [name]
    while left:
        stage = STAGES[left.pop()]
        new = {*stage.after, *stage.also_after(config)} - found
        found |= new
        left += new
    return [below for below in STAGES if below in found]


def check_names(config: RunConfig) -> None:
    """Raises UserError for maps and CRFs that do not exist, before anything is trained."""
    offered = find_method(config.method).offered()
    chosen_kind(offered, config.search.maps)
    asked_kinds(offered, config.search.kinds)
    for option, preset in (("masks.crf", config.masks.crf), ("segment.crf", config.segment.crf)):
        if preset != "none" and preset not in PRESETS:
            raise ConfigError(f"{option} is '{preset}'; choose one of {', '.join(PRESETS)}, none")


HEADLINE = {
    "seeds/miou": "seeds, threshold chosen without masks",
    "seeds/miou_oracle": "seeds (oracle threshold)",
    "seeds/search_refined_oracle": "prototype search alone (oracle)",
    "seeds/attention_refined_oracle": "seeds without the prototypes (oracle)",
    "masks/miou": "pseudo-masks",
    "crossfit/miou": "masks by networks that had not learned them",
    "val/miou_single": "segmentation network on val, one scale",
    "val/miou": "segmentation network on val",
    "cam/oracle": "plain CAM (oracle)",
    "cam/spread_oracle": "plain CAM + attention (oracle)",
}


def print_headline(run: Run, metrics: Metrics) -> None:
    for key, title in HEADLINE.items():
        if isinstance(metrics.get(key), float):
            shown = title.replace("on val", "on training pictures") if metrics.get("val/learned") else title
            console.print(f"{shown:42s} {metrics[key]:5.1f} mIoU", highlight=False)
    print_doubts((text for stage in WARNED for text in metrics.get(f"{stage}/warnings", ())), console)
    console.print(f"report: {run.folder('report') / 'index.html'}", highlight=False, soft_wrap=True)

"""What every stage shares: a folder with config.toml and metrics.json, and being skipped when nothing has changed.

A stage is done when its metrics.json exists (written last) and its fingerprint, over everything it depends on, is the
one it was made with.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mupvss.config.load import save_config
from mupvss.config.schema import DataConfig, RunConfig, Section
from mupvss.config.used import effective
from mupvss.data.sample import Dataset
from mupvss.files import file_state, read_json, remove_leftovers, write_json
from mupvss.model.pretrained import weights_identity
from mupvss.runtime.log import console
from mupvss.runtime.memory import gpu_memory, peak_memory_mb, reset_peak_memory
from mupvss.runtime.processes import processes
from mupvss.training.loop import remove_states
from mupvss.version import VERSION

Metrics = dict[str, Any]
EARLIER = ".earlier"
"""What the folder of a finished stage is called once other settings or data took its place."""


@dataclass(frozen=True)
class Run:
    """One run: its config and the folder its stages talk through."""

    config: RunConfig
    out: Path
    trained_by: Path | None = None
    """The folder of another run whose training is the same; None: its own."""

    def folder(self, stage: str) -> Path:
        return (self.trained_by or self.out) / stage if stage == "train" else self.out / stage


def fingerprint(*parts: Any) -> str:
    """Hash over configs, data sets and other fingerprints, and over the version that computes with them."""
    return hashlib.sha256(json.dumps([VERSION, *map(_plain, parts)], sort_keys=True).encode()).hexdigest()


def stage_fingerprint(folder: Path) -> str:
    """The fingerprint a finished stage was made with; empty if it is not finished."""
    marker = folder / "stage.json"
    return str(read_json(marker)["fingerprint"]) if marker.is_file() and (folder / "metrics.json").is_file() else ""


def finished(folder: Path, depends_on: str, truth: str = "") -> bool:
    """Whether the folder holds this stage's result, scored against these masks; one that does not say is believed."""
    return stage_fingerprint(folder) == depends_on and read_json(folder / "stage.json").get("truth", truth) == truth


def run_stage(run: Run, name: str, depends_on: str, work: Callable[[Path], Metrics], truth: str = "") -> Metrics:
    """Runs `work(folder)` unless the folder holds its result already; returns the stage's metrics either way.

    truth: of what the result is scored against (`truth_identity`). Where that alone has changed, `work` is done again in the
    same folder, and finds there what does not depend on it.
    """
    folder, team = run.folder(name), processes()
    if team.from_main(finished(folder, depends_on, truth)):
        console.print(f"{name}: up to date", highlight=False)
        if team.main:
            _tidy(folder)
        return dict(read_json(folder / "metrics.json"))
    if team.main:
        _begin(folder, depends_on, truth, run.config)
    team.wait()
    reset_peak_memory()
    begin = time.monotonic()
    earlier = _earlier_seconds(folder)
    try:
        metrics = work(folder)
        seconds = earlier + time.monotonic() - begin
        metrics = {**metrics, "seconds": round(seconds, 2), "peak_mb": round(peak_memory_mb(), 1), **gpu_memory()}
        team.wait()
        if team.main:
            write_json(folder / "metrics.json", metrics)
    except BaseException:  # an interrupt too: the seconds of a stopped and resumed stage add up
        if team.main:
            # May not hide what stopped it: on a full disk it fails too, and without memory in any way, by a SystemError even.
            with contextlib.suppress(Exception):
                write_json(folder / "elapsed.json", {"seconds": earlier + time.monotonic() - begin})
        raise
    if team.main:
        _tidy(folder)
    team.wait()
    console.print(f"{name}: done in {seconds:.0f} s, {metrics['peak_mb']:.0f} MB at most", highlight=False)
    return metrics


def _tidy(folder: Path) -> None:
    """What only an unfinished stage needs."""
    remove_states(folder)
    (folder / "elapsed.json").unlink(missing_ok=True)


def _begin(folder: Path, depends_on: str, truth: str, config: RunConfig) -> None:
    """Keeps what a stopped attempt at the same work left behind; sets aside what other work finished, one such per stage."""
    marker = folder / "stage.json"
    shutil.rmtree(_doomed(folder), ignore_errors=True)
    if folder.is_dir():
        remove_leftovers(folder, below=marker.is_file())
        if not marker.is_file() and any(folder.iterdir()):
            raise FileExistsError(f"{folder}: holds files, but none of a stage; give another --out or empty it yourself")
        if marker.is_file() and read_json(marker)["fingerprint"] != depends_on:
            _set_aside(folder)
    (folder / "metrics.json").unlink(missing_ok=True)
    # The marker first: whatever stops this, a folder of ours is known by it.
    write_json(marker, {"fingerprint": depends_on, "truth": truth, "version": VERSION})
    save_config(folder / "config.toml", config)


def _doomed(folder: Path) -> Path:
    """What the folder of an unfinished stage is called while it is deleted."""
    return folder.with_name(f".{folder.name}.deleted")


def _set_aside(folder: Path) -> None:
    if not (folder / "metrics.json").is_file():
        folder.replace(_doomed(folder))  # in one step, so that no half of a stage is ever taken for something else
        shutil.rmtree(_doomed(folder))
        return
    aside = folder.with_name(folder.name + EARLIER)
    shutil.rmtree(aside, ignore_errors=True)
    folder.replace(aside)
    console.print(f"{folder.name}: settings or data have changed; the earlier result is kept in {aside}", highlight=False)


def _earlier_seconds(folder: Path) -> float:
    path = folder / "elapsed.json"
    return float(read_json(path)["seconds"]) if path.is_file() else 0.0


def gather_metrics(run: Run) -> Metrics:
    """Flat keys STAGE/NAME of every finished stage, written to metrics.json in the run's folder."""
    gathered: Metrics = {}
    for path in sorted(run.out.glob("*/metrics.json")):
        if not path.parent.name.endswith(EARLIER):
            gathered |= _flat(path.parent.name, read_json(path))
    if processes().main:
        remove_leftovers(run.out, below=False)
        write_json(run.out / "metrics.json", gathered)
    return gathered


def _flat(prefix: str, value: Any) -> Metrics:
    if not isinstance(value, dict):
        return {prefix: value}
    return {key: entry for name, part in value.items() for key, entry in _flat(f"{prefix}/{name}", part).items()}


def dataset_identity(dataset: Dataset) -> list[Any]:
    """What of a data set a result depends on: classes, names, tags, and the state of the files behind them."""
    return [dataset.classes, [(s.name, sorted(s.tags), file_state(s.origin)) for s in dataset.samples]]


def truth_identity(dataset: Dataset, data: DataConfig) -> str:
    """What scores depend on beside the pictures: which of them have masks, the state of those files, and how they are read."""
    state = functools.cache(file_state)  # of COCO's masks there is one file
    masks = [(s.name, s.mask_origin and state(s.mask_origin)) for s in dataset.samples if s.open_mask is not None]
    return fingerprint(data.other_classes, data.crowd, masks)


def _plain(part: Any) -> Any:
    """Options at their defaults are left out, so that a new option does not undo finished work, and so are those without an
    effect. A default that changes is a change of version, or of its stage's revision."""
    return _by_content(effective(part).model_dump(mode="json", exclude_defaults=True)) if isinstance(part, Section) else part


def _by_content(options: dict[str, Any]) -> dict[str, Any]:
    """With files of weights given by what they hold: the same ones may lie elsewhere, and others may take their place."""
    found = {name: _by_content(value) if isinstance(value, dict) else value for name, value in options.items()}
    if isinstance(source := found.get("weights"), str) and source:
        found["weights"] = weights_identity(source)
    return found

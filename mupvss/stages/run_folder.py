"""What every stage shares: a folder with config.toml and metrics.json, and being skipped when nothing that it reads has changed.

A stage declares one frozen model of exactly what its work reads (`Stage.inputs`); its work gets that and no config. Its
fingerprint covers the full values of these inputs, the stages it builds on, its pictures, and its revision. The version of mupvss
is not part of it, so a release makes no finished run void. A stage is done when its metrics.json exists (written last) and its
fingerprint is the one it was made with.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout

from mupvss.config.load import save_config
from mupvss.config.run import RunConfig
from mupvss.data.decisions import with_decisions
from mupvss.data.readable import readable
from mupvss.data.sample import Dataset
from mupvss.data.sources import Purpose, load_dataset
from mupvss.data.walk import MARKER, marker_of
from mupvss.errors import DataError
from mupvss.files import file_state, lock_for, read_json, remove_leftovers, write_json
from mupvss.model.licences import Origin, origins_of
from mupvss.model.pretrained import weights_identity
from mupvss.options import DataConfig, ModelConfig, Section
from mupvss.runtime.device import pick_device
from mupvss.runtime.log import console, progress_bar
from mupvss.runtime.memory import gpu_memory, peak_memory_mb, reset_peak_memory
from mupvss.runtime.processes import processes
from mupvss.search.given import folder_state
from mupvss.stages.sums import remove_sums
from mupvss.training.batches import Manner
from mupvss.training.loop import remove_states
from mupvss.version import VERSION

Metrics = dict[str, Any]
WARNED = ("seeds", "affinity", "masks", "crossfit", "val")
"""Stages whose metrics have `warnings` about the masks."""
EARLIER = ".earlier"
"""Suffix of the folder that keeps a finished stage after its settings or data have changed."""


@dataclass(frozen=True)
class Run:
    """One run: its config, and the folder through which its stages exchange results."""

    config: RunConfig
    out: Path
    trained_by: Path | None = None
    """The folder of another run with the same training; None: this run trains for itself."""
    checked_in: Path | None = None
    """The folder that remembers which pictures can be read, for runs with the same pictures; None: the run's own."""

    def folder(self, stage: str) -> Path:
        return (self.trained_by or self.out) / stage if stage == "train" else self.out / stage

    def checkpoint(self, stage: str) -> Path:
        return self.folder(stage) / "model.safetensors"

    @property
    def manner(self) -> Manner:
        """How the run is carried out, on which no result depends."""
        config = self.config
        kept = (config.workers, config.checkpoint_every, config.snapshots, config.tensorboard, config.preview)
        return Manner(pick_device(config.device), *kept)

    def origins(self, model: ModelConfig) -> tuple[Origin, ...]:
        """Where the classifier's weights and pictures come from; no result depends on their licences."""
        licences = self.config.licences
        return origins_of(getattr(model, "weights", None), licences.weights, licences.pictures)


@dataclass(frozen=True)
class Work:
    """What the work of a stage receives."""

    inputs: Any
    """The stage's own model of what it reads."""
    dataset: Dataset
    folder: Path
    """The stage's own folder."""
    run: Run
    """Used for the folders of other stages. Settings come from `inputs`, which say what a stage depends on."""
    identity: str
    """The stage's fingerprint; a training is resumed only if it is the same."""
    further: Dataset | None = None
    """The pictures that the stage asked for with `Stage.further`."""
    pictures: str = ""
    """Identifies the data set: its classes, names, tags and files."""

    @property
    def device(self) -> torch.device:
        return self.run.manner.device


@dataclass(frozen=True)
class Stage:
    name: str
    inputs: Callable[[RunConfig], Section]
    """Selects exactly what `work` reads of a config."""
    work: Callable[[Work], Metrics]
    pictures: Purpose = "seeds"
    after: tuple[str, ...] = ()
    """The stages whose results it reads."""
    also_after: Callable[[RunConfig], tuple[str, ...]] = lambda config: ()
    """Those that it reads besides under some configs only."""
    scores: bool = False
    """Whether it scores against true masks. If only those have changed, the work is done again in the same folder, and finds
    there what does not depend on them."""
    revision: int = 1
    """Increased when the same options start to give another result."""
    further: Callable[[Run], Purpose | None] = lambda run: None
    """Which other pictures it shows; called only when the stage has something to do."""
    does: str = ""
    """What it does, printed when it begins; {pictures} stands for their number."""
    idle: Callable[[Any], bool] = lambda inputs: False
    """Whether there is nothing to do under these inputs; nothing is printed then."""
    learns_masks: bool = False
    """Whether it trains on masks, and so depends on those that people accepted or rejected in the studio."""


def fingerprint(*parts: Any) -> str:
    """Hash over plain values and sections; of a section, all values count, including defaults."""
    return hashlib.sha256(json.dumps([_plain(part) for part in parts], sort_keys=True).encode()).hexdigest()


def _plain(part: Any) -> Any:
    if not isinstance(part, Section):
        return part
    found: dict[str, Any] = dict(type(part).removed)
    values = part.model_dump(mode="json")
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        if "neutral" in extra and values[name] == extra["neutral"]:
            continue  # an option that was added later, at the value that changes nothing
        if isinstance(value, Section):
            found[name] = _plain(value)
        elif name in ("weights", "decoder") and value:  # by content: the file may be moved, or replaced by another
            found[name] = weights_identity(value)
        elif name == "given" and value:
            found[name] = folder_state(value)
        else:
            found[name] = values[name]
    return found


def stage_fingerprint(folder: Path) -> str:
    """The fingerprint a finished stage was made with; empty if it is not finished."""
    return str(marker_of(folder)["fingerprint"]) if (folder / "metrics.json").is_file() and marker_of(folder) else ""


def known_by(stage: Stage, config: RunConfig, dataset: Dataset, after: list[str], pictures: list[Any] | None = None) -> str:
    """The fingerprint of a stage. after: the fingerprints of the stages it builds on. pictures: `dataset_identity` if known."""
    decided = given_identity(dataset) if stage.learns_masks else []
    pictures = dataset_identity(dataset) if pictures is None else pictures
    return fingerprint(stage.name, stage.revision, stage.inputs(config), after, pictures, *([decided] if decided else []))


def finished(folder: Path, known: str, truth: str = "") -> bool:
    """Whether the folder holds this stage's result, scored against these masks; a missing entry counts as a match."""
    return stage_fingerprint(folder) == known and marker_of(folder).get("truth", truth) == truth


STUDIO, CHECKED = "studio", "pictures.json"
"""Names in a run's folder: the studio's decisions, and the results of checking the pictures."""


def pictures_of(run: Run, purpose: Purpose) -> Dataset:
    """The pictures for one purpose, with the decisions of the run's studio; each is decoded once before training. DataError that
    lists those that cannot be read, unless data.unreadable is "skip"."""
    config = run.config
    dataset = with_decisions(load_dataset(config.data, purpose, config.limit), run.out / STUDIO)
    with processes().main_first():
        return readable(dataset, config.data.unreadable, (run.checked_in or run.out) / CHECKED)


def identities(stage: Stage, run: Run, dataset: Dataset, pictures: list[Any]) -> tuple[str, str]:
    """The fingerprint of a stage of a run, and what identifies the masks that score it. pictures: see `dataset_identity`."""
    after = [stage_fingerprint(run.folder(name)) for name in (*stage.after, *stage.also_after(run.config))]
    truth = truth_identity(dataset, run.config.data) if stage.scores else ""
    return known_by(stage, run.config, dataset, after, pictures), truth


def recognised(stage: Stage, run: Run, dataset: Dataset, pictures: list[Any]) -> tuple[str, str]:
    """As `identities`; a result of 0.1.0 that has them is taken over."""
    known, truth = identities(stage, run, dataset, pictures)
    if processes().main:
        from mupvss.stages.earlier import take_over

        take_over(stage, run, dataset, known, truth)
    return known, truth


def up_to_date(stage: Stage, run: Run, dataset: Dataset, pictures: list[Any]) -> bool:
    """Whether the run has this stage's result for its settings and these pictures; how it was scored does not count."""
    known, _ = recognised(stage, run, dataset, pictures)
    return processes().from_main(stage_fingerprint(run.folder(stage.name)) == known)


def run_stage(stage: Stage, run: Run) -> Metrics:
    """Does the stage's work unless its folder already holds the result; returns its metrics either way."""
    dataset = pictures_of(run, stage.pictures)
    folder, team = run.folder(stage.name), processes()
    pictures = dataset_identity(dataset)
    known, truth = recognised(stage, run, dataset, pictures)
    if team.main:
        _take_back(stage, run, dataset, known, truth)
    team.wait()
    inputs = stage.inputs(run.config)
    if team.from_main(finished(folder, known, truth)):
        if not stage.idle(inputs):
            console.print(f"{stage.name}: up to date", highlight=False)
        if team.main:
            _tidy(folder)
        return dict(read_json(folder / "metrics.json"))
    others = stage.further(run)
    further = None if others is None else pictures_of(run, others)
    work = Work(inputs, dataset, folder, run, known, further, fingerprint(pictures))
    return _do(stage, work, truth)


def _do(stage: Stage, work: Work, truth: str) -> Metrics:
    folder, team = work.folder, processes()
    if team.main:
        _begin(folder, stage, work, truth)
    team.wait()
    if stage.does and not stage.idle(work.inputs):
        console.print(f"{stage.name}: {stage.does.format(pictures=_counted(work.dataset))}", highlight=False, soft_wrap=True)
    reset_peak_memory()
    begin, earlier = time.monotonic(), _earlier_seconds(folder)
    try:
        metrics = stage.work(work)
        seconds = earlier + time.monotonic() - begin
        metrics = {**metrics, "seconds": round(seconds, 2), "peak_mb": round(peak_memory_mb(), 1), **gpu_memory()}
        team.wait()
        if team.main:
            write_json(folder / "metrics.json", metrics)
    except BaseException:  # interrupts too: the seconds of a stopped and resumed stage add up
        if team.main:
            # Must not hide the first error: this fails too on a full disk, and without memory in any way, even with SystemError.
            with contextlib.suppress(Exception):
                write_json(folder / "elapsed.json", {"seconds": earlier + time.monotonic() - begin})
        raise
    if team.main:
        _tidy(folder)
    team.wait()
    if not stage.idle(work.inputs):
        console.print(f"{stage.name}: done in {seconds:.0f} s, {metrics['peak_mb']:.0f} MB at most", highlight=False)
    return metrics


def _counted(dataset: Dataset) -> str:
    count = len(dataset.samples)
    return f"{count:,} picture{'' if count == 1 else 's'}"


def _tidy(folder: Path) -> None:
    """Removes what only an unfinished stage needs."""
    remove_states(folder)
    remove_sums(folder)
    (folder / "elapsed.json").unlink(missing_ok=True)


def _begin(folder: Path, stage: Stage, work: Work, truth: str) -> None:
    """Keeps what a stopped attempt at the same work left behind; sets aside the finished result of other work, one per stage."""
    marker = folder / MARKER
    shutil.rmtree(_doomed(folder), ignore_errors=True)
    if folder.is_dir():
        remove_leftovers(folder, below=marker.is_file())
        if not marker.is_file() and any(folder.iterdir()):
            raise DataError(f"{folder}: contains files that no stage wrote; give another --out, or empty the folder")
        if marker.is_file() and read_json(marker)["fingerprint"] != work.identity:
            _set_aside(folder)
    (folder / "metrics.json").unlink(missing_ok=True)
    # The marker first: it identifies a stage's folder even if something stops the rest.
    below = (*stage.after, *stage.also_after(work.run.config))
    after = {name: stage_fingerprint(work.run.folder(name)) for name in below}
    made_of = {"revision": stage.revision, "inputs": _plain(work.inputs), "version": VERSION, "after": after}
    write_json(marker, {"fingerprint": work.identity, "truth": truth, **made_of})
    save_config(folder / "config.toml", work.run.config)


def _doomed(folder: Path) -> Path:
    """Name of an unfinished stage's folder while it is being deleted."""
    return folder.with_name(f".{folder.name}.deleted")


def _kept_aside(folder: Path) -> Path:
    """Where a stage's finished result is kept while its folder holds another one."""
    return folder.with_name(folder.name + EARLIER)


def set_aside_unasked(run: Run, stage: str) -> None:
    """Sets aside the result of a stage that the config no longer asks for, so that nothing takes it for a part of the run. An
    unfinished stage stays, since nothing takes that for a result."""
    folder = run.folder(stage)
    if processes().main and (folder / MARKER).is_file() and (folder / "metrics.json").is_file():
        _set_aside(folder)
    processes().wait()


def _set_aside(folder: Path) -> None:
    if not (folder / "metrics.json").is_file():
        folder.replace(_doomed(folder))  # in one step, so that half a stage is never mistaken for something else
        shutil.rmtree(_doomed(folder))
        return
    aside = _kept_aside(folder)
    shutil.rmtree(aside, ignore_errors=True)
    folder.replace(aside)
    console.print(f"{folder.name}: settings or data have changed; the old result is kept in {aside}", highlight=False)


def _take_back(stage: Stage, run: Run, dataset: Dataset, known: str, truth: str) -> None:
    """Uses the result that was set aside, if it is the one that is asked for now; that of the folder takes its place."""
    from mupvss.stages.earlier import take_over

    folder = run.folder(stage.name)
    aside, between = _kept_aside(folder), folder.with_name(f".{folder.name}.exchanged")
    if between.is_dir():  # an exchange was stopped half-way
        empty = next((place for place in (folder, aside) if not place.exists()), None)
        if empty is None:
            shutil.rmtree(between)
        else:
            between.replace(empty)
    if not aside.is_dir() or stage_fingerprint(folder) == known:
        return
    take_over(stage, run, dataset, known, truth, aside)
    if stage_fingerprint(aside) != known:
        return
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        return  # not a stage's folder; `_begin` says so
    if (folder / "metrics.json").is_file():
        folder.replace(between)
    elif folder.is_dir():
        _set_aside(folder)
    aside.replace(folder)
    if between.is_dir():
        between.replace(aside)
    console.print(f"{folder.name}: the earlier result is the one that is asked for, and is used again", highlight=False)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keeps a second command from working on the same run. DataError if another one, of this user and computer, does."""
    with contextlib.ExitStack() as held:
        if processes().main:
            try:
                held.enter_context(lock_for(folder, shared=True).acquire(timeout=WAITED))
            except Timeout:
                raise DataError(
                    f"{folder}: another mupvss is working in this folder; wait until it has ended, or give another --out"
                ) from None
            except (OSError, RuntimeError, NotImplementedError):
                pass  # there is no place for locks, or no way to lock there
        yield


WAITED = 8.0
"""Seconds for which `alone_in` waits: processes that read pictures for a killed training notice after five."""


def reuse(folder: Path, part: str, known: str) -> None:
    """Makes a subfolder of a stage's result again available after other settings of the stage have changed, on which it does not
    depend.

    Args:
        folder: The stage's own folder. Results of an earlier attempt at the same work are kept.
        part: Name of the subfolder.
        known: Identifies what the subfolder depends on. The stage set aside is used if it was made under the same.
    """
    record, aside = f"{part}.json", _kept_aside(folder)
    begun = (folder / record).is_file() or (folder / part).exists()
    if not begun and (aside / part).is_dir() and (aside / record).is_file() and read_json(aside / record) == {"of": known}:
        console.print(f"{folder.name}: takes over what the change does not concern ({part})", highlight=False)
        temporary = folder / f".{part}.copied"
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(aside / part, temporary, copy_function=_linked)
        temporary.replace(folder / part)
    write_json(folder / record, {"of": known})


def _linked(source: str, target: str) -> str:
    """Copies a file that is never changed in place, without using its space twice where the disk can do that."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def _earlier_seconds(folder: Path) -> float:
    path = folder / "elapsed.json"
    return float(read_json(path)["seconds"]) if path.is_file() else 0.0


def gather_metrics(run: Run) -> Metrics:
    """Flat keys STAGE/NAME of every finished stage, written to metrics.json in the run's folder."""
    gathered: Metrics = {}
    for path in sorted(run.out.glob("*/metrics.json")):
        if not path.parent.name.endswith(EARLIER) and not path.parent.name.startswith("."):
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
    """What results depend on in a data set: classes, names, tags, and the state of the files behind them."""
    known = []
    with progress_bar("pictures", len(dataset.samples), "read", brief=True) as advance:  # scenes are drawn for it
        for number, sample in enumerate(dataset.samples, 1):
            known.append((sample.name, sorted(sample.tags), file_state(sample.origin)))
            if number % 50 == 0:
                advance(50)
    return [dataset.classes, known]


def truth_identity(dataset: Dataset, data: DataConfig) -> str:
    """What scores depend on besides the pictures: which of them have masks, the state of those files, and how they are read."""
    read = [getattr(data, name, usual) for name, usual in (("other_classes", "background"), ("crowd", "ignore"))]
    return fingerprint(*read, masks_of(dataset))


def given_identity(dataset: Dataset) -> list[Any]:
    """Which masks people accepted or painted, the state of those files, and which pictures they rejected; empty without any."""
    return [
        (s.name, s.given_origin and file_state(s.given_origin), s.rejected)
        for s in dataset.samples
        if s.given_mask is not None or s.rejected
    ]


def masks_of(dataset: Dataset) -> list[Any]:
    """Which pictures have masks, and the state of those files and of what says what their colours mean."""
    state = functools.cache(file_state)  # all of COCO's masks are in one file
    masked = [s for s in dataset.samples if s.open_mask is not None]
    keys = [state(key) for key in sorted({s.mask_key for s in masked if s.mask_key})]
    return [*((s.name, s.mask_origin and state(s.mask_origin)) for s in masked), *keys]

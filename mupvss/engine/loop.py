"""The optimisation loop every training shares: resumable at each checkpoint with the result of an unbroken run."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mupvss.config.schema import TrainConfig
from mupvss.engine.checkpoint import load_state, save_state
from mupvss.engine.device import device_name
from mupvss.engine.log import Journal, console, last_entry, progress_bar
from mupvss.engine.optimizer import learning_rate_factor, set_learning_rate
from mupvss.engine.precision import computed_in
from mupvss.engine.processes import processes
from mupvss.engine.stopping import stop_requests
from mupvss.errors import CheckpointError, OutOfMemoryError, StoppedError, TrainingDivergedError, is_out_of_memory

LOG_EVERY = 10


@dataclass(frozen=True)
class Loop:
    """What is trained, on what, and how long."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    batches: Callable[[int], Iterable[Any]]
    """First step -> the batches from there on."""
    loss: Callable[[Any, float], tuple[Tensor, dict[str, Tensor]]]
    """Batch, share of the training done -> the loss, and further figures for the log, all scalars."""
    origins: Callable[[Any], list[str]]
    """Batch -> the files it is made of, for error messages."""
    steps: int
    config: TrainConfig
    identity: str
    """Changes with anything that changes the result, so that only the same training is resumed."""
    save: Callable[[Path], None]
    """Writes the network to a file; the main process alone calls it."""


def optimise(loop: Loop, folder: Path, title: str) -> dict[str, Any]:
    """Trains into folder/model.safetensors, resuming from folder/state.safetensors if that is a checkpoint of this very
    training; -> the last figures, the precision computed in (fp32 or bf16) and the device (`device_name`), either "mixed" if
    it was resumed where another is used. The state stays: whoever has written down the result removes it (`remove_states`).
    """
    config, team = loop.config, processes()
    state = state_path(folder)
    first, computed = _resume(loop, state, title)
    journal = Journal(folder / "log.jsonl", first, config.tensorboard) if team.main else None
    kept = {loop.steps * k // (config.snapshots + 1) for k in range(1, config.snapshots + 1)}
    begin = time.monotonic()
    entry = last_entry(folder / "log.jsonl") if first == loop.steps else {}
    images = loop.steps * config.batch_size
    with (
        progress_bar(title, images, "images", first * config.batch_size) as advance,
        stop_requests(signal.SIGTERM, signal.SIGINT) as stop,
    ):
        for step, batch in enumerate(loop.batches(first), first):
            set_learning_rate(loop.optimizer, learning_rate_factor(step, loop.steps, config.warmup_steps))
            figures = _step(loop, batch, step / loop.steps)
            done = step + 1
            if done % LOG_EVERY == 0 or done == loop.steps:
                rate = (done - first) * config.batch_size / (time.monotonic() - begin)
                entry = {"step": done, **figures, "images_per_s": round(rate, 2)}
                if journal is not None:
                    journal.write(entry)
            if done in kept and team.main:
                loop.save(snapshot_path(folder, done * config.batch_size))
            leave = team.any(stop.requested)
            if team.main and (leave or done == loop.steps or done % config.checkpoint_every == 0):
                save_state(state, loop.network, loop.optimizer, loop.identity, {"step": done, **computed})
            if leave:
                team.wait()
                raise StoppedError(stop.signal)
            advance(config.batch_size, f"loss {figures['loss']:.3f}")
    if team.main:
        loop.save(folder / "model.safetensors")
    team.wait()
    return {**entry, **computed}


def state_path(folder: Path) -> Path:
    return folder / "state.safetensors"


def snapshot_path(folder: Path, image_steps: int) -> Path:
    """Where the network is kept that has seen `image_steps` pictures."""
    return folder / "snapshots" / f"{image_steps:08d}.safetensors"


def remove_states(folder: Path) -> None:
    """Those of the trainings in a folder and in the folders right below it."""
    for path in (state_path(folder), *folder.glob(f"*/{state_path(folder).name}")):
        path.unlink(missing_ok=True)


def _resume(loop: Loop, state: Path, title: str) -> tuple[int, dict[str, str]]:
    """The step to go on from, and precision and device of the whole; every process reads the state before any goes on."""
    try:
        header = load_state(state, loop.network, loop.optimizer, loop.identity) if state.is_file() else {}
    except CheckpointError as error:
        raise CheckpointError(f"{error}. Delete it, and this training begins anew") from None
    processes().wait()
    first = int(header["step"]) if header else 0
    device = next(loop.network.parameters()).device
    here = {"precision": computed_in(device, loop.config.precision), "device": device_name(device)}
    before = {name: str(header.get(name, "unknown")) for name in here} if header else here
    if first == loop.steps:
        return first, before
    other = {name: value for name, value in before.items() if value != here[name]}
    if first:
        notes = [f"{name} {here[name]}, before {value}" for name, value in other.items()]
        console.print("; ".join((f"{title}: going on from step {first}", *notes)), highlight=False, soft_wrap=True)
    if here["precision"] != loop.config.precision:
        console.print(f"{title}: in float32, since this processor has no units for bfloat16", highlight=False)
    return first, here | dict.fromkeys(other, "mixed")


def _step(loop: Loop, batch: Any, progress: float) -> dict[str, float]:
    try:
        loss, further = loop.loss(batch, progress)
        loop.optimizer.zero_grad(set_to_none=True)
        loss.backward()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"out of memory with batches of {loop.config.batch_size} pictures; lower train.batch_size "
            f"(to {max(1, loop.config.batch_size // 2)}, say) and train.lr with it, or the size of the pictures"
        ) from None
    trained = [parameter for group in loop.optimizer.param_groups for parameter in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(trained, loop.config.clip_norm)
    named = {"loss": loss.detach(), **further, "gradient norm": norm}
    # Fetched together: each value asked for by itself would have a GPU wait for us once more.
    figures = processes().mean(dict(zip(named, torch.stack(list(named.values())).tolist(), strict=True)))
    if not math.isfinite(figures["loss"] + figures["gradient norm"]):
        parts = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        raise TrainingDivergedError(
            f"the loss or its gradient is no longer finite ({parts}). "
            f"Lower train.lr, or look at the pictures of this batch: {', '.join(loop.origins(batch))}"
        )
    loop.optimizer.step()
    del figures["gradient norm"]
    return figures

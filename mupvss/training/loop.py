"""The optimisation loop that every training shares. Resumed at a checkpoint, it gives the result of an uninterrupted run."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mupvss.errors import CheckpointError, OutOfMemoryError, StoppedError, TrainingDivergedError, UserError, is_out_of_memory
from mupvss.model.build import is_decayed
from mupvss.model.checkpoint import load_state, save_state
from mupvss.options import DenseTrainConfig, TrainConfig
from mupvss.runtime.device import computed_in, device_name
from mupvss.runtime.log import Journal, console, last_entry, progress_bar
from mupvss.runtime.processes import processes
from mupvss.runtime.stopping import stop_requests
from mupvss.training.batches import Manner

T = TypeVar("T")
LOG_EVERY = 10
WEIGHT_DECAY, CLIP_NORM = 0.05, 5.0
"""For trainings with a label per pixel."""


def grouped_optimizer(
    network: nn.Module, lr: float, new_lr_scale: float, weight_decay: float, new: Callable[[str], bool]
) -> torch.optim.AdamW:
    """Four groups: pretrained or new, decayed or not. Each keeps its full rate under 'peak'; frozen parameters are in none.

    new: whether the parameter of this name has no pretrained value; its learning rate is lr times new_lr_scale.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((new(name), is_decayed(name, parameter)), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "peak": lr * (new_lr_scale if is_recent else 1.0),
                "weight_decay": weight_decay if decayed else 0.0,
            }
            for (is_recent, decayed), parameters in groups.items()
        ],
        lr=lr,
    )


def learning_rate_factor(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then a cosine to zero; `step` counts from 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


class Loop:
    """One training, from its first step, or from where it was stopped, to its last:

        with Loop(network, optimizer, ...) as loop:
            for batch in loop.over(batches(..., loop.first, loop.steps)):
                loss, figures = ...
                loop.learn(loss, figures, batch.origins)
        loop.figures

    It trains into FOLDER/model.safetensors, and resumes from FOLDER/state.safetensors if that is a checkpoint of the same
    training. The state stays until the caller has saved the result and removes it (`remove_states`).
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: TrainConfig | DenseTrainConfig,
        manner: Manner,
        folder: Path,
        title: str,
        identity: str,
        save: Callable[[Path], None],
        clip_norm: float = CLIP_NORM,
    ) -> None:
        """identity: changes with anything that changes the result, so that only the same training is resumed; save: writes the
        network to a file, called by the main process alone; clip_norm: gradients are clipped to this norm."""
        self.network, self.optimizer, self.config, self.manner, self.clip_norm = network, optimizer, config, manner, clip_norm
        self.folder, self.title, self.identity, self.save = folder, title, identity, save
        self.steps = max(1, config.image_steps // config.batch_size)
        self.first, self.step = 0, 0
        """The first step and the current one, both counted from 0."""
        self.computed: dict[str, str] = {}
        self.entry: dict[str, float] = {}
        self._kept = {self.steps * k // (manner.snapshots + 1) for k in range(1, manner.snapshots + 1)}
        self._preview_step = min(self.manner.preview_at // config.batch_size, self.steps - 1)
        self._open = contextlib.ExitStack()

    @property
    def progress(self) -> float:
        """Share of the training that is done, in [0, 1)."""
        return self.step / self.steps

    @property
    def figures(self) -> dict[str, Any]:
        """The last figures, the precision (fp32 or bf16) and the device (`device_name`); either is "mixed" if the training was
        resumed with another one."""
        return {**self.entry, **self.computed}

    def __enter__(self) -> Loop:
        config, log = self.config, self.folder / "log.jsonl"
        self.first, self.computed = self._resume()
        self._journal = Journal(log, self.first, self.manner.tensorboard) if processes().main else None
        self._begin = time.monotonic()
        self.entry = last_entry(log) if self.first == self.steps else {}
        images, done = self.steps * config.batch_size, self.first * config.batch_size
        self._advance = self._open.enter_context(progress_bar(self.title, images, "images", done))
        self._stop = self._open.enter_context(stop_requests(signal.SIGTERM, signal.SIGINT))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.__exit__(kind, error, trace)
        if error is None:
            if processes().main:
                self.save(self.folder / "model.safetensors")
            processes().wait()
        elif is_out_of_memory(error):
            size = self.config.batch_size
            raise OutOfMemoryError(
                f"out of memory with batches of {size} pictures; lower train.batch_size (to {max(1, size // 2)}, say) "
                "and train.lr with it, or the size of the pictures"
            ) from None

    def over(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches of the steps from `first` on, each at its learning rate. Raises the error of a picture that could not be
        read (see `training/batches.py`)."""
        readers = iter(batches)
        try:
            for step, batch in enumerate(readers, self.first):
                if isinstance(batch, UserError):
                    raise batch
                self.step = step
                set_learning_rate(self.optimizer, learning_rate_factor(self.step, self.steps, self.config.warmup_steps))
                yield batch
        finally:
            # Reader processes ignore SIGTERM, so that at exit Python would wait for them without end.
            end = getattr(readers, "_shutdown_workers", None)
            if end is not None:
                end()

    def learn(self, loss: Tensor, further: dict[str, Tensor], origins: Sequence[str]) -> None:
        """Takes one step down the loss, logs, saves, and stops if that was requested.

        further: figures for the log, all scalars; origins: the files that the batch is made of, for error messages.
        """
        config, team, done = self.config, processes(), self.step + 1
        figures = self._descend(loss, further, origins)
        if done % LOG_EVERY == 0 or done == self.steps:
            rate = (done - self.first) * config.batch_size / (time.monotonic() - self._begin)
            self.entry = {"step": done, **figures, "images_per_s": round(rate, 2)}
            if self._journal is not None:
                self._journal.write(self.entry)
        if done in self._kept and team.main:
            self.save(snapshot_path(self.folder, done * config.batch_size))
        if self.manner.preview is not None and done == self._preview_step:
            self._show(self.manner.preview)
        leave = team.any(self._stop.requested)
        if team.main and (leave or done == self.steps or done % self.manner.checkpoint_every == 0):
            save_state(state_path(self.folder), self.network, self.optimizer, self.identity, {"step": done, **self.computed})
        if leave:
            team.wait()
            raise StoppedError(self._stop.signal)
        self._advance(config.batch_size, f"loss {figures['loss']:.3f}")

    def _show(self, preview: Callable[[Path], None]) -> None:
        """Calls `preview` with a temporary copy of the network; the training is not changed, and its speed counts without it."""
        path, begin = self.folder / "preview.safetensors", time.monotonic()
        self.save(path)
        try:
            preview(path)
        finally:
            path.unlink(missing_ok=True)
        self._begin += time.monotonic() - begin

    def _descend(self, loss: Tensor, further: dict[str, Tensor], origins: Sequence[str]) -> dict[str, float]:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(trained, self.clip_norm)
        named = {"loss": loss.detach(), **further, "gradient norm": norm}
        # Fetched together, since each fetch makes a GPU wait.
        figures = processes().mean(dict(zip(named, torch.stack(list(named.values())).tolist(), strict=True)))
        if not math.isfinite(figures["loss"] + figures["gradient norm"]):
            parts = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
            raise TrainingDivergedError(
                f"the loss or its gradient is no longer finite ({parts}). "
                f"Lower train.lr, or look at the pictures of this batch: {', '.join(origins)}"
            )
        self.optimizer.step()
        del figures["gradient norm"]
        return figures

    def _resume(self) -> tuple[int, dict[str, str]]:
        """The step to resume from, and precision and device of the whole. All processes read the state before any continues."""
        state = state_path(self.folder)
        try:
            header = load_state(state, self.network, self.optimizer, self.identity) if state.is_file() else {}
        except CheckpointError as error:
            raise CheckpointError(f"{error}. Delete it, and this training starts over") from None
        processes().wait()
        first = int(header["step"]) if header else 0
        device = next(self.network.parameters()).device
        here = {"precision": computed_in(device, self.config.precision), "device": device_name(device)}
        before = {name: str(header.get(name, "unknown")) for name in here} if header else here
        if first == self.steps:
            return first, before
        other = {name: value for name, value in before.items() if value != here[name]}
        if first:
            notes = [f"{name} {here[name]}, before {value}" for name, value in other.items()]
            console.print("; ".join((f"{self.title}: going on from step {first}", *notes)), highlight=False, soft_wrap=True)
        if here["precision"] != self.config.precision:
            console.print(f"{self.title}: in float32, since this processor has no units for bfloat16", highlight=False)
        return first, here | dict.fromkeys(other, "mixed")


def state_path(folder: Path) -> Path:
    return folder / "state.safetensors"


def snapshot_path(folder: Path, image_steps: int) -> Path:
    """Path of the network that is kept after `image_steps` pictures."""
    return folder / "snapshots" / f"{image_steps:08d}.safetensors"


def remove_states(folder: Path) -> None:
    """Removes the states of the trainings in a folder and in the folders right below it."""
    for path in (state_path(folder), *folder.glob(f"*/{state_path(folder).name}")):
        path.unlink(missing_ok=True)

"""The processes that share one job, started by torchrun and joined through Accelerate; without torchrun there is one.

`torchrun --nproc-per-node 2 -m mupvss train CONFIG` gives the result of `mupvss train CONFIG`: a batch is divided between the
processes, not repeated, and so are the pictures of the other stages.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import datetime
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mupvss.errors import MissingExtraError, UserError
from mupvss.runtime.launch import processes_on_this_computer, started_by_torchrun

T = TypeVar("T")
ON_CPU = "ACCELERATE_USE_CPU"
PATIENCE = datetime.timedelta(days=7)
"""How long the processes wait for each other. Pictures are divided by number, and some take longer than others."""


class Processes:
    """A single process, for which every method has its trivial result."""

    rank, count = 0, 1
    local_rank, local_count = 0, 1
    """Rank and count among the processes on this computer."""

    @property
    def main(self) -> bool:
        """Whether this is the process that writes the shared files."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T] | Sequence[T]:
        """This process's share of the items: every count-th."""
        return items[self.rank :: self.count] if self.count > 1 else items

    def rows(self, total: int) -> slice:
        """This process's rows of a batch; UserError unless all processes get the same number."""
        if total % self.count:
            raise UserError(f"batch_size is {total}, which {self.count} processes cannot share equally; choose a multiple")
        each = total // self.count
        return slice(self.rank * each, (self.rank + 1) * each)

    def wait(self) -> None:
        """Waits until all processes are here."""

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process runs the block before the others start it."""
        yield

    def from_main(self, value: T) -> T:
        """The main process's value, in every process."""
        return value

    def in_order(self, own: Sequence[T]) -> list[T]:
        """One entry for each item of `share` -> those of all items, in the items' order."""
        return list(own)

    def total(self, array: np.ndarray) -> np.ndarray:
        """Sum over the processes."""
        return array

    def mean(self, figures: dict[str, float]) -> dict[str, float]:
        """Means over the processes."""
        return figures

    def any(self, flag: bool) -> bool:
        return flag

    def gathered(self, x: Tensor) -> Tensor:
        """Rows of all processes, in the order of the batch; gradients flow back to the process that each row comes from."""
        return x

    def mean_count(self, count: Tensor) -> Tensor:
        """The count averaged over the processes: if each divides its sum by it, the mean of the quotients is the mean over
        all."""
        return count

    def wrapped(self, network: nn.Module) -> Callable[..., Any]:
        """The network as it is called in training, with gradients averaged over the processes."""
        return network


class SeveralProcesses(Processes):
    def __init__(self) -> None:
        try:
            from accelerate import PartialState
        except ImportError:
            raise MissingExtraError("several processes need the extra: pip install 'mupvss[distributed]'") from None
        on_cpu = ON_CPU in os.environ or not torch.cuda.is_available()
        self.state = PartialState(cpu=on_cpu, timeout=PATIENCE)
        self.rank, self.count = self.state.process_index, self.state.num_processes
        self.local_rank, self.local_count = self.state.local_process_index, processes_on_this_computer()
        atexit.register(self.state.destroy_process_group)

    def wait(self) -> None:
        self.state.wait_for_everyone()

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        with self.state.main_process_first():
            yield

    def from_main(self, value: T) -> T:
        values = [value]
        torch.distributed.broadcast_object_list(values, 0)
        return values[0]

    def in_order(self, own: Sequence[T]) -> list[T]:
        parts: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(parts, list(own))
        whole: list[Any] = [None] * sum(len(part) for part in parts)
        for rank, part in enumerate(parts):
            whole[rank :: self.count] = part
        return whole

    def total(self, array: np.ndarray) -> np.ndarray:
        summed = torch.from_numpy(array.copy()).to(self.state.device)
        torch.distributed.all_reduce(summed)
        return summed.cpu().numpy()

    def mean(self, figures: dict[str, float]) -> dict[str, float]:
        means = self.total(np.array(list(figures.values()), np.float64)) / self.count
        return dict(zip(figures, means.tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        return bool(self.total(np.array([flag], np.int64))[0])

    def gathered(self, x: Tensor) -> Tensor:
        return _Gather.apply(x.float() if x.dtype in (torch.bfloat16, torch.float16) else x, self.rank, self.count)

    def mean_count(self, count: Tensor) -> Tensor:
        summed = count.detach().clone()
        torch.distributed.all_reduce(summed)
        return summed / self.count

    def wrapped(self, network: nn.Module) -> Callable[..., Any]:
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs

        if self.state.device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        # A static graph allows parameters without a gradient, such as those of losses that are switched off.
        options = DistributedDataParallelKwargs(static_graph=True)
        plain = _PlainOutputs(network)
        called = Accelerator(cpu=self.state.device.type == "cpu", kwargs_handlers=[options]).prepare_model(plain)

        def call(*arguments: Any) -> Any:
            found = called(*arguments)
            return found if plain.kind is None else plain.kind(**found)

        return call


class _PlainOutputs(nn.Module):
    """A network's output as a dict: DDP finds no tensors in a dataclass, and silently does not average their gradients."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.kind: type | None = None

    def forward(self, *arguments: Any) -> Any:
        found = self.network(*arguments)
        if not dataclasses.is_dataclass(found) or isinstance(found, type):
            return found
        self.kind = type(found)
        return {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}


class _Gather(torch.autograd.Function):
    """A differentiable gather, since PyTorch's own has changed its name twice."""

    @staticmethod
    def forward(context: Any, x: Tensor, rank: int, count: int) -> Tensor:
        context.rows = slice(rank * len(x), (rank + 1) * len(x))
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(count)]
        torch.distributed.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        summed = gradient.contiguous().clone()
        torch.distributed.all_reduce(summed)  # each process's loss has a gradient for these rows
        return summed[context.rows], None, None


@functools.cache
def processes() -> Processes:
    """The processes of this job, joined on the first call."""
    return SeveralProcesses() if started_by_torchrun() else Processes()


def use_cpu() -> None:
    """Joins without GPUs on a computer that has them. Call it before the first call of `processes`."""
    os.environ[ON_CPU] = "true"

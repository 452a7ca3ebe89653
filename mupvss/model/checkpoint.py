"""The one checkpoint format: tensors in safetensors, everything else as JSON in its header. Nothing is ever unpickled.

model.safetensors holds a finished network with all that is needed to use it. state.safetensors lies beside it until the
training's figures are written; it holds the network, the optimizer and the random state, so that a stopped run resumes exactly.
"""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mupvss.errors import CheckpointError, is_out_of_memory
from mupvss.files import atomic_path
from mupvss.version import VERSION

FORMAT = 1
KEY = "mupvss"
"""Key of the entry in a file's metadata that holds our header, as JSON."""


def save_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Writes atomically: the old file stays until the new one is complete."""
    metadata = {KEY: header_text(header)}
    with atomic_path(path) as temporary:
        try:
            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary, metadata)
        except SafetensorError as error:
            raise OSError(errno.EIO, f"cannot be written ({error})", str(path)) from None


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a file written by `save_tensors`."""
    header = read_header(path)
    try:
        return load_file(path), header
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from None


def read_header(path: Path) -> dict[str, Any]:
    """The header of a file, without its tensors; CheckpointError if mupvss did not write the file."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; train first, or give the folder of a finished run")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from None
    if KEY not in metadata:
        raise CheckpointError(f"{path}: a safetensors file, but not written by mupvss; use it as model.weights instead")
    return parse_header(metadata[KEY], path)


def header_text(header: dict[str, Any]) -> str:
    """The header as it is written into a file, with the format and the version that wrote it."""
    return json.dumps({"format": FORMAT, "version": VERSION, **header})


def parse_header(text: str, path: Path) -> dict[str, Any]:
    """Reads what `header_text` wrote; CheckpointError if it is damaged, or of a format that this version does not read."""
    try:
        header = dict(json.loads(text))
        written, by = header["format"], str(header["version"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its header cannot be understood ({type(error).__name__}: {error})") from None
    if written != FORMAT:
        raise CheckpointError(
            f"{path}: format {written} (written by version {by}), this version reads {FORMAT}; use that version, or write "
            "it again"
        )
    return header


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    """The error for a file whose content is wrong, or that the disk cannot read."""
    if isinstance(error, OSError):
        return CheckpointError(f"{path}: cannot be read ({error})")
    return CheckpointError(f"{path}: not a readable checkpoint ({error}); it may be cut off")


@contextlib.contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Turns errors in the use of a checkpoint's content into CheckpointError, naming the file."""
    try:
        yield
    except (ValueError, TypeError, KeyError, ArithmeticError, RuntimeError, MemoryError) as error:
        if isinstance(error, CheckpointError) or is_out_of_memory(error):
            raise
        said = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path}: the weights do not match the model description in this file ({said})") from None


def save_state(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, identity: str, header: dict[str, Any]) -> None:
    """identity: which training this is; the state of another one is never resumed. header: further entries to save."""
    saved = optimizer.state_dict()
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    for index, entry in saved["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in entry.items()}
    tensors["random.torch"] = torch.get_rng_state()
    device = next(network.parameters()).device
    if device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        tensors["random.mps"] = torch.mps.get_rng_state()
    save_tensors(path, tensors, {**header, "identity": identity})


def load_state(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, identity: str) -> dict[str, Any]:
    """Restores what `save_state` wrote; -> its header. If the identity differs, changes nothing; -> an empty dict."""
    tensors, header = load_tensors(path)
    if header.get("identity") != identity:
        return {}
    network.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("network.")})
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(tensors["random.torch"])
    device = next(network.parameters()).device
    if "random.cuda" in tensors and device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random.cuda"], device)
    if "random.mps" in tensors and device.type == "mps":
        torch.mps.set_rng_state(tensors["random.mps"])
    return header

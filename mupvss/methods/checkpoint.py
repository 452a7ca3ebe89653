"""A finished classifier on disk: its tensors, and in the header its classes, its method and that method's options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mupvss.data.preprocess import MEAN, STD
from mupvss.errors import CheckpointError
from mupvss.methods import find_method
from mupvss.methods.earlier import modern
from mupvss.methods.method import Method
from mupvss.model.checkpoint import fitting, load_tensors, read_header, save_tensors
from mupvss.model.licences import Origin, as_header, from_header, without_folders
from mupvss.options import SearchConfig, Section


@dataclass(frozen=True)
class ModelInfo:
    """What a checkpoint says about its network."""

    classes: tuple[str, ...]
    method: Method
    model: Any
    """A ViTConfig or a CNNConfig."""
    options: Any
    """The method's own options."""
    named: str
    """The method as the config named it."""
    origins: tuple[Origin, ...] = ()
    """Where its weights and pictures come from, with their licences."""

    def header(self) -> dict[str, Any]:
        """The header as it is written into a file."""
        return {
            "classes": list(self.classes),
            "method": self.named,
            "model": without_folders(self.model),
            "options": self.options.model_dump(mode="json"),
            "normalisation": {"mean": list(MEAN), "std": list(STD)},
            "origins": as_header(self.origins),
        }

    def build(self) -> nn.Module:
        """The network without its weights."""
        return self.method.build(self.model, self.options, len(self.classes), False)


def save_model(path: Path, network: nn.Module, info: ModelInfo) -> None:
    save_tensors(path, network.state_dict(), info.header())


def read_info(path: Path) -> ModelInfo:
    """What a finished checkpoint says about its network, without the tensors."""
    return model_info(read_header(path), path)


def read_model(path: Path) -> tuple[dict[str, Tensor], ModelInfo]:
    tensors, header = load_tensors(path)
    return tensors, model_info(header, path)


def model_info(header: Mapping[str, Any], path: Path) -> ModelInfo:
    """What a header says about its network. CheckpointError for the header of another kind of file, or an inconsistent one."""
    if "classes" not in header:
        raise CheckpointError(f"{path}: a training state, not a finished model; use model.safetensors")
    with fitting(path):
        if "method" not in header:  # written by version 0.1.0
            words = modern({"model": dict(header["model"])}, str(path))
            method = find_method(str(words["method"]), trusted=False)
            model, options = words.get("model", {}), {k: v for k, v in words.get(method.table, {}).items() if k != "search"}
        else:
            method = find_method(str(header["method"]), trusted=False)
            model, options = header["model"], header["options"]
        return ModelInfo(
            tuple(str(name) for name in header["classes"]),
            method,
            method.model.model_validate_json(json.dumps(model)),
            method.options.model_validate_json(json.dumps(options)),
            str(header.get("method", method.name)),
            from_header(header),
        )


def load_network(path: Path) -> tuple[Any, ModelInfo]:
    """The classifier of a finished checkpoint, on the CPU, and what the checkpoint says about it."""
    tensors, info = read_model(path)
    with fitting(path):
        network = info.build()
        network.load_state_dict(tensors)
    return network, info


def search_settings(settings: Mapping[str, Any], method: Method) -> tuple[SearchConfig, Section]:
    """The settings of the search, and the method's own part of them, from files of this version or 0.1.0: the keys `search` and
    `options`."""
    words = modern({"method": method.name, "search": settings["search"]}, "the file")
    own = settings.get("options", words.get("mupvss", {}).get("search", {}) if method.table == "mupvss" else {})
    search = SearchConfig.model_validate_json(json.dumps(words.get("search", {})))
    return search, method.search.model_validate_json(json.dumps(own))

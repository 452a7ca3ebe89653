"""ONNX Runtime and OpenVINO as modules that the predictors call as they call PyTorch's."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from mupvss.errors import CheckpointError, MissingExtraError
from mupvss.model.checkpoint import KEY, parse_header
from mupvss.model.features import Features
from mupvss.ops import full_precision, pooled

Run = Callable[[np.ndarray], list[np.ndarray]]
Runtime = Literal["auto", "onnxruntime", "openvino"]
"""Runtime that computes an exported network; auto: ONNX Runtime if it is installed, else OpenVINO."""


def open_runtime(path: Path, runtime: Runtime) -> Run:
    """The file's network as a function of arrays. MissingExtraError if the runtime is not installed."""
    chosen = runtime
    if runtime == "auto":
        chosen = "onnxruntime" if importlib.util.find_spec("onnxruntime") else "openvino"
    if importlib.util.find_spec(chosen) is None:
        extra = "openvino" if chosen == "openvino" else "onnx"
        raise MissingExtraError(f"{chosen} is not installed: pip install 'mupvss[{extra}]'")
    return _onnxruntime(path) if chosen == "onnxruntime" else _openvino(path)


def _onnxruntime(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})


def _openvino(path: Path) -> Run:
    import openvino

    # By default it computes in bfloat16 where the processor can, which moves boundaries.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)

    def run(images: np.ndarray) -> list[np.ndarray]:
        found = compiled([images])
        return [np.array(found[port]) for port in compiled.outputs]

    return run


class _RuntimeNetwork(nn.Module):
    def __init__(self, path: Path, header: dict[str, Any], runtime: Runtime) -> None:
        super().__init__()
        self.run, self.names, self.stride = open_runtime(path, runtime), header["outputs"], int(header["stride"])
        self.place = nn.Parameter(torch.zeros(0), requires_grad=False)  # tells callers the device

    def tensors(self, images: Tensor) -> dict[str, Tensor]:
        found = self.run(images.detach().float().cpu().contiguous().numpy())
        return {name: torch.from_numpy(array) for name, array in zip(self.names, found, strict=True)}


class RuntimeSegmenter(_RuntimeNetwork):
    """images (B, 3, H, W) -> logits, as the exported segmentation network returns them."""

    def forward(self, images: Tensor) -> Tensor:
        return self.tensors(images)["logits"]


class RuntimeClassifier(_RuntimeNetwork):
    """images (B, 3, H, W) -> Features, as the exported classifier returns them."""

    def __init__(self, path: Path, header: dict[str, Any], runtime: Runtime) -> None:
        super().__init__(path, header, runtime)
        model = header["model"]
        self.decay, self.reference = float(model["gwrp_decay"]), int(model["gwrp_patches"])
        self.pooling = header.get("options", {}).get("pooling", "gwrp")

    def forward(self, images: Tensor, need_attention: bool = False) -> Features:
        tensors = self.tensors(images)
        grid = (images.shape[-2] // self.stride, images.shape[-1] // self.stride)
        logits, attention = full_precision(tensors["patch_logits"]), tensors.get("class_attention")
        return to_features(tensors, grid, pooled(logits, self.pooling, self.decay, self.reference, attention))


def load_runtime(path: Path, runtime: Runtime) -> tuple[RuntimeSegmenter | RuntimeClassifier, dict[str, Any]]:
    """The network behind an exported file, and the file's header."""
    header = read_onnx_header(path)
    kind = RuntimeSegmenter if "segment" in header else RuntimeClassifier
    return kind(path, header, runtime), header


def read_onnx_header(path: Path) -> dict[str, Any]:
    """The header of an exported file; CheckpointError if mupvss did not write the file."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError:
        raise MissingExtraError("ONNX files need the extra 'onnx': pip install 'mupvss[onnx]'") from None
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; write it with 'mupvss export'")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable ONNX file ({error}); export it again") from None
    found = {entry.key: entry.value for entry in model.metadata_props}
    if KEY not in found:
        raise CheckpointError(f"{path}: an ONNX file, but not written by mupvss; write one with 'mupvss export'")
    return parse_header(found[KEY], path)


LEFT_OUT = frozenset({"grid", "patch_score", "block_tokens"})
"""Not exported: the grid follows from the picture's size and the score from the logits; block tokens are for a loss only."""


class PlainOutputs(nn.Module):
    """The classifier with attention, returning its tensors in the order of `names`."""

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.network(images, need_attention=True)
        return tuple(getattr(features, name) for name in self.names)


def output_names(features: Features) -> tuple[str, ...]:
    """Names of the tensors that a network returns when asked for attention."""
    return tuple(f.name for f in fields(Features) if f.name not in LEFT_OUT and getattr(features, f.name) is not None)


def to_features(tensors: dict[str, Tensor], grid: tuple[int, int], patch_score: Tensor) -> Features:
    return Features(grid=grid, patch_score=patch_score, **tensors)

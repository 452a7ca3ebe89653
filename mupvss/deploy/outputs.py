"""A classifier's Features as a plain list of tensors, which is what an ONNX file can return, and back."""

from __future__ import annotations

from dataclasses import fields

from torch import Tensor, nn

from mupvss.model.outputs import Features

LEFT_OUT = frozenset({"grid", "patch_score", "block_tokens"})
"""The grid follows from the picture's size, the score from the logits; block tokens serve a loss only."""


class PlainOutputs(nn.Module):
    """The classifier with attention, returning its tensors in the order of `names`."""

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.network(images, need_attention=True)
        return tuple(getattr(features, name) for name in self.names)


def output_names(features: Features) -> tuple[str, ...]:
    """Of the tensors a network returns when asked for attention."""
    return tuple(f.name for f in fields(Features) if f.name not in LEFT_OUT and getattr(features, f.name) is not None)


def to_features(tensors: dict[str, Tensor], grid: tuple[int, int], patch_score: Tensor) -> Features:
    return Features(grid=grid, patch_score=patch_score, **tensors)

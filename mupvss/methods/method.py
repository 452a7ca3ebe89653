"""The definition of a method: everything that it adds, declared in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mupvss.options import ModelConfig, Section, ViTConfig

if TYPE_CHECKING:  # PyTorch takes seconds to load, and --help needs only the options
    from torch import Tensor, nn

    from mupvss.model.features import Features
    from mupvss.search.maps import Map

Losses = dict[str, "tuple[float, Tensor]"]
"""By name: weight, and the loss itself, a scalar in float32. The total is the weighted sum."""


class NoOptions(Section):
    """For a method, or a search, without options."""


def nothing_shared(features: Features, options: Any) -> Mapping[str, Tensor]:
    return {}


@dataclass(frozen=True)
class Method:
    """A method of weak supervision; docs/adding-a-method.md shows how to build one.

    `build`, `losses` and `maps` import what needs PyTorch only when they are called, so that `--help` starts quickly.
    """

    name: str
    """As in `method = "vit-cam"`; also the name of its table of options, with _ for -."""
    family: str
    """Name of its family in comparisons, as in "class tokens"."""
    build: Callable[[Any, Any, int, bool], nn.Module]
    """(model, options, number of classes, whether to load pretrained weights) -> the network: images (B, 3, H, W), normalised,
    and need_attention -> Features. Its encoder must be called `backbone`; everything else has no pretrained weights."""
    losses: Callable[[Any, Features, Tensor, Any, float], Losses]
    """(network, what it returned, tags (B, C) of 0 and 1, options, share of the training done) -> the losses."""
    maps: Callable[[], dict[str, Map]]
    """The maps it offers by name, its own first."""
    options: type[Section] = NoOptions
    """Options of the network and its training: the table named after the method."""
    search: type[Section] = NoOptions
    """Options of its maps: the table `search` in that one."""
    model: type[ModelConfig] = ViTConfig
    """What the section `model` holds: a ViT's options or a CNN's."""
    shared: Callable[[Features, Any], Mapping[str, Tensor]] | None = field(default=None)
    """(features, options of the search) -> those fields of Features that replace the fields of every scale of the search. The
    features are of one pass over the picture and its mirror (B = 2), at the training's number of patches."""

    @property
    def table(self) -> str:
        """The key of its options in a config."""
        return self.name.replace("-", "_")

    def offered(self) -> dict[str, Map]:
        """Its maps; ValueError if it has none."""
        found = self.maps()
        if not found:
            raise ValueError(f"the method '{self.name}' offers no maps")
        return found

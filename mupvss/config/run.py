"""The config of one run: the shared options and those of the chosen method, source, affinity and network, and no others."""

from __future__ import annotations

import functools
from typing import Annotated, Any

from pydantic import Field, create_model

from mupvss.methods import Method, find_method
from mupvss.options import (
    AFFINITIES,
    NETWORKS,
    SOURCES,
    AffinityConfig,
    CNNConfig,
    CrossfitConfig,
    DataConfig,
    DeepLabSegment,
    HeadAffinity,
    Licences,
    MasksConfig,
    Positive,
    ScenesData,
    SearchConfig,
    Section,
    TrainConfig,
    ViTConfig,
    ViTSegment,
)


class RunConfig(Section):
    """One run, from pictures to report. `concrete` narrows it to the chosen sections, so that no other option is accepted."""

    method: str = "mupvss"
    """mupvss, mctformer, vit-cam, cnn-cam, recam, or a method of another package as package.module:NAME."""
    seed: int = 0
    """Seed of everything random, except the drawings."""
    limit: int | None = Field(default=None, ge=1)
    """Use only the first pictures of each split, this number at most, for a quick look."""
    baseline: bool = False
    """Also train and score a plain CAM with the same backbone and number of steps."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ..."""
    threads: int = Field(default=0, ge=0)
    """CPU threads; 0: one per core."""
    workers: int | None = Field(default=None, ge=0)
    """Number of processes that read training pictures. Default: one on a CPU; one per core, at most 8, with a GPU."""
    checkpoint_every: Positive = 100
    """Number of steps between resumable checkpoints of a training."""
    snapshots: int = Field(default=0, ge=0)
    """Number of networks to keep during the classifier's training, evenly spaced, for a learning curve."""
    preview: int = Field(default=0, ge=0)
    """Number of image steps of the classifier's training after which rough masks are made, to see wrong tags early. 0: none."""
    tensorboard: bool = False
    """Also log for TensorBoard (needs the extra `tensorboard`)."""
    data: Annotated[DataConfig, Field(discriminator="source")] = ScenesData()
    model: ViTConfig | CNNConfig = ViTConfig()
    train: TrainConfig = TrainConfig()
    search: SearchConfig = SearchConfig()
    affinity: Annotated[AffinityConfig, Field(discriminator="kind")] = HeadAffinity()
    masks: MasksConfig = MasksConfig()
    licences: Licences = Licences()
    crossfit: CrossfitConfig = CrossfitConfig()
    segment: Annotated[ViTSegment | DeepLabSegment, Field(discriminator="network")] = ViTSegment()

    @property
    def options(self) -> Section:
        """The method's own options for network and training."""
        return self._of_method("options")

    @property
    def search_options(self) -> Section:
        """The method's own options for its search."""
        return self._of_method("search")

    def _of_method(self, part: str) -> Section:
        method = find_method(self.method)
        table, wanted = getattr(self, method.table, None), getattr(method, part)
        if part == "search":
            return getattr(table, "search", None) or wanted()
        return (
            wanted() if table is None else wanted.model_construct(**{name: getattr(table, name) for name in wanted.model_fields})
        )


@functools.cache
def concrete(method: Method, source: str, affinity: str, network: str) -> type[RunConfig]:
    """RunConfig with only the sections of these choices, at their defaults, and the method's table."""
    sections: dict[str, type[Section]] = {
        "data": SOURCES[source],
        "model": method.model,
        "affinity": AFFINITIES[affinity],
        "segment": NETWORKS[network],
    }
    if (table := options_table(method)) is not None:
        sections[method.table] = table
    fields: dict[str, Any] = {name: (section, section()) for name, section in sections.items()}
    return create_model("RunConfig", __base__=RunConfig, __doc__=RunConfig.__doc__, method=(str, method.name), **fields)


@functools.cache
def options_table(method: Method) -> type[Section] | None:
    """The method's options with those of its search in the table `search`; None if it has none."""
    if not method.search.model_fields:
        return method.options if method.options.model_fields else None
    search: Any = (method.search, method.search())
    return create_model(method.options.__name__, __base__=method.options, __doc__=method.options.__doc__, search=search)


def usual_affinity(method: Method) -> str:
    """The default kind of affinity: a head needs a ViT."""
    return "head" if issubclass(method.model, ViTConfig) else "none"


def usual_network(method: Method) -> str:
    """The default segmentation network."""
    return "vit" if issubclass(method.model, ViTConfig) else "resnet38"

"""The form of a finished run's figures on disk. Whatever has it can be tabled and drawn."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, FiniteFloat, model_validator

Percent = Annotated[FiniteFloat, Field(ge=0, le=100)]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Amount = Annotated[FiniteFloat, Field(ge=0)]


class Strict(BaseModel, strict=True):
    """No figure is made of a text."""


class Scores(Strict):
    miou: Percent
    oracle: Percent


class Point(Strict, extra="allow"):
    """Of the learning curve: image steps, and scores by the kind of map."""

    __pydantic_extra__: dict[str, Scores]
    image_steps: Annotated[int, Field(ge=0)]


class Completeness(Strict):
    covered: Share | None
    body: Share | None
    groups: list[tuple[Share, Share | None, Share | None]]
    """Size, covered, body."""


class Kind(Strict):
    """One kind of map. Without true masks it has no scores."""

    miou: Percent | None = None
    miou_oracle: Percent | None = None
    iou: list[Percent | None] | None = None
    iou_oracle: list[Percent | None] | None = None
    completeness: Completeness

    @model_validator(mode="after")
    def _all_or_none(self) -> Kind:
        if len({value is None for value in (self.miou, self.miou_oracle, self.iou, self.iou_oracle)}) > 1:
            raise ValueError("some of miou, miou_oracle, iou and iou_oracle are missing")
        return self

    @property
    def lengths(self) -> set[int]:
        """Of the lists of IoU, which have one entry for the background and one for each class."""
        return {len(values) for values in (self.iou, self.iou_oracle) if values is not None}


class Spent(Strict):
    seconds: Amount
    peak_mb: Amount
    precision: Literal["bf16", "fp32", "mixed"] | None = None
    """What it was computed in; of earlier records unknown."""
    device: str | None = None
    """What it was computed on: cpu, a GPU's name, or mixed; of earlier records unknown."""
    gpu_peak_mb: Amount | None = None


class Cost(Strict):
    parameters: Amount
    gflops: Amount


class Figures(Strict):
    identity: list[str]
    maps: str
    kinds: Annotated[dict[str, Kind], Field(min_length=1)]
    train: Spent
    seeds: Spent
    cost: Cost
    curve: list[Point]
    curve_pictures: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _maps_are_there(self) -> Figures:
        if self.maps not in self.kinds:
            raise ValueError(f"its maps are '{self.maps}', its kinds {', '.join(self.kinds)}")
        return self

    def check_classes(self, count: int) -> None:
        """ValueError unless every list of IoU is of the background and `count` classes."""
        for name, kind in self.kinds.items():
            if not kind.lengths <= {count + 1}:
                raise ValueError(f"{name} has {sorted(kind.lengths)} entries of IoU; expected {count + 1}")

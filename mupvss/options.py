"""The options that all methods share, frozen and strict: a key that is not here is an error.

Each part of the code receives only its own section. What only one method, one source of pictures, one kind of affinity or one
segmentation network reads stands in a class of its own, so that nothing is accepted and then ignored. Those of a method live with
the method (`methods/`). Paths are kept as written; a relative path means relative to where the command is run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Scales = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
Affine = Literal["patch", "attention", "both"]


def added(default: Any, neutral: Any, **limits: Any) -> Any:
    """The default of an option that came after a release. neutral: the value under which everything is computed as it was before
    the option, so that finished runs, which do not know it, stay valid (`stages/run_folder.py`)."""
    return Field(default=default, json_schema_extra={"neutral": neutral}, **limits)


class Section(BaseModel):
    """Base of every section: immutable, no unknown keys, no silent conversion of text to numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class ScenesConfig(Section):
    """The drawings themselves."""

    seed: int = 0
    """Seed of the drawings; another seed is another data set."""
    size: Positive = 96
    """Side of a picture in pixels."""
    train: Positive = 8000
    """Number of training pictures (drawn when asked for, never stored)."""
    seeds: Positive = 200
    """How many of the training pictures get seeds and are scored."""
    world: Literal["six", "many"] = added("six", neutral="six")
    """Which things are drawn: the six of the built-in data set, or the many other kinds that the drawn backbone learned from."""


class Pictures(Section):
    """What every source of pictures has."""

    classes: tuple[str, ...] = ()
    """Class names, in order of the class ids 1, 2, ... Empty: all classes of the source."""
    seed_every: Positive = 1
    """Give seeds to every n-th picture only, for quick comparisons."""


class ScenesData(Pictures):
    """Pictures that the product draws itself."""

    source: Literal["scenes"] = "scenes"
    """scenes: drawn by the product; voc and coco: the folder layouts of these data sets; folder: your own pictures."""
    other_classes: Literal["background", "ignore"] = "background"
    """What classes of the masks that are not in `classes` count as."""
    scenes: ScenesConfig = ScenesConfig()


class VocData(Pictures):
    """A data set in Pascal VOC's layout."""

    source: Literal["voc"] = "voc"
    """scenes: drawn by the product; voc and coco: the folder layouts of these data sets; folder: your own pictures."""
    root: Path = Path()
    """The folder that holds JPEGImages."""
    tags: Path | None = None
    """Tags: .csv or .jsonl (picture, tags), COCO or Label Studio .json, CVAT .xml, a folder of VOC's XML. Default:
    Annotations/."""
    masks: str = "SegmentationClass"
    """Name of the folder with the masks."""
    lists: str = "ImageSets/Segmentation"
    """Folder of the split lists, below root; or package:voc-animals, the lists of a small part of VOC that come with mupvss."""
    other_classes: Literal["background", "ignore"] = "background"
    """What classes of the masks that are not in `classes` count as."""
    train_split: str = "train"
    """Split whose pictures train the classifier."""
    seed_split: str = "train"
    """Split whose pictures get seeds and pseudo masks."""
    seed_without: str | None = None
    """Exclude the pictures of this split from them, so that you can tune on it."""
    score_split: str | None = None
    """Score only pictures of this split (a subset of seed_split). Default: every picture that has a mask."""
    val_split: str = "val"
    """Split that the segmentation network is scored on."""


class CocoData(Pictures):
    """A data set in COCO's layout."""

    source: Literal["coco"] = "coco"
    """scenes: drawn by the product; voc and coco: the folder layouts of these data sets; folder: your own pictures."""
    root: Path = Path()
    """The folder that holds annotations/ and the folders of pictures."""
    other_classes: Literal["background", "ignore"] = "background"
    """What categories that are not in `classes` count as in the masks."""
    crowd: Literal["ignore", "class"] = "ignore"
    """What crowd regions count as in the masks: nothing, or their class."""
    train_split: str = "train2014"
    """Split whose pictures train the classifier: train2014 or train2017."""
    seed_split: str = "train2014"
    """Split whose pictures get seeds and pseudo masks."""
    val_split: str = "val2014"
    """Split that the segmentation network is scored on."""


class FolderData(Pictures):
    """Your own pictures."""

    source: Literal["folder"] = "folder"
    """scenes: drawn by the product; voc and coco: the folder layouts of these data sets; folder: your own pictures."""
    root: Path = Path()
    """The folder of the pictures."""
    tags: Path | None = None
    """Tags: .csv or .jsonl (picture, tags), COCO or Label Studio .json, CVAT .xml, a folder of VOC's XML. Default: one folder per
    tag."""
    val_tags: Path | None = None
    """Tags of pictures kept back, like `tags`: the segmentation network is tried on them. Default: on the pictures that have a
    mask."""
    masks: str = "SegmentationClass"
    """Folder with palette PNGs of true masks, if there are any."""


DataConfig = ScenesData | VocData | CocoData | FolderData
SOURCES: dict[str, type[ScenesData] | type[VocData] | type[CocoData] | type[FolderData]] = {
    "scenes": ScenesData,
    "voc": VocData,
    "coco": CocoData,
    "folder": FolderData,
}


class ModelConfig(Section):
    """What every network has."""

    image_size: Positive = 224
    """Side of the pictures during training, in pixels; any size works afterwards."""
    gwrp_decay: Annotated[float, Field(gt=0, le=1)] = 0.995
    """Decay per rank of the global weighted rank pooling, at `gwrp_patches` patches. 1: the mean."""
    gwrp_patches: int = Field(default=784, ge=0)
    """Number of patches the decay is given for; it is rescaled to the patches there are. 0: never rescaled."""


class ViTConfig(ModelConfig):
    """A vision transformer."""

    backbone: str = "tiny"
    """tiny, small, base (ViT-Ti/S/B), or micro (for training from scratch on a CPU)."""
    patch_size: Positive = 16
    """Side of a patch in pixels."""
    weights: str | None = None
    """Pretrained weights: a path, a URL (https://...#sha256=...), or a hub name (timm/deit_...). An empty text: from scratch."""
    weights_pixels: Literal["imagenet", "half"] = "imagenet"
    """How the weights' pixels were normalised: ImageNet's mean and deviation, or half: 0.5 and 0.5, as AugReg's were."""
    registers: int = Field(default=0, ge=0)
    """Register tokens, as the weights have them."""
    layer_scale: bool = False
    """Whether residual branches have a learned factor per channel, as those of DINOv2 have."""
    drop_path: Fraction = 0.1
    """Stochastic depth, rising linearly over the blocks."""


class CNNConfig(ModelConfig):
    """A convolutional network."""

    backbone: Literal["resnet38", "efficientnet-lite0"] = "efficientnet-lite0"
    weights: str | None = None
    """Pretrained weights: a path, a URL (https://...#sha256=...), or package:efficientnet-lite0. An empty text: from scratch."""
    channels: float = Field(default=1.0, gt=0)
    """resnet38: factor on every number of channels; 0.125 runs on a CPU."""
    frozen_stages: int = Field(default=0, ge=0)
    """This many first stages keep their pretrained weights."""

    @property
    def patch_size(self) -> int:
        """Its stride, in pixels."""
        return {"resnet38": 8, "efficientnet-lite0": 16}[self.backbone]


class PEMConfig(Section):
    """Prototype Embedding Module: how prototypes and patches enrich each other in a block."""

    blocks: Literal["all", "late", "none"] = "none"
    """Which blocks have one; late: the last third."""
    logits: Literal["cosine", "dot"] = "cosine"
    """Similarity of two tokens; dot is the paper's."""
    temperature: float = Field(default=0.1, gt=0)
    """Logits are divided by it before the softmax."""
    threshold: float = 0.0
    """Ignore similarities at or under it (tau_PEM)."""
    gate: Literal["learned", "open"] = "learned"
    """learned: one factor per block, starting at zero; open: full strength, as printed."""
    enriched: Literal["both", "prototypes", "patches"] = "both"
    """What is added to: both, as printed, or one side alone."""


class DenseTrainConfig(Section):
    """Learning from a label per pixel. Whether pictures are mirrored is `train.flip`."""

    image_steps: Positive = 12_800
    """Pictures seen in all; steps = image_steps / batch_size."""
    batch_size: Positive = 32
    """Pictures per step. With fewer, lower the learning rate too."""
    lr: float = Field(default=1e-4, gt=0)
    """Highest learning rate, after the warm-up; a cosine brings it to zero."""
    warmup_steps: int = Field(default=50, ge=0)
    """Steps over which the learning rate rises."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """As `train.precision`."""


class AffinityTrainConfig(DenseTrainConfig):
    """Training the affinity network."""

    image_steps: Positive = 3200
    batch_size: Positive = 8
    lr: float = Field(default=1e-3, gt=0)
    """Highest learning rate, after the warm-up; a cosine brings it to zero."""
    warmup_steps: int = Field(default=20, ge=0)
    """Steps over which the learning rate rises."""


class TrainConfig(Section):
    """Training the classifier from tags."""

    image_steps: Positive = 25_000
    """Pictures seen in all; steps = image_steps / batch_size."""
    batch_size: Positive = 32
    """Pictures per step. With fewer, lower the learning rate too."""
    lr: float = Field(default=1e-4, gt=0)
    """Highest learning rate, after the warm-up; a cosine brings it to zero."""
    new_lr_scale: float = Field(default=5.0, gt=0)
    """Factor on the learning rate of what has no pretrained weights."""
    weight_decay: float = Field(default=0.05, ge=0)
    """AdamW's, on matrices alone."""
    warmup_steps: int = Field(default=50, ge=0)
    """Steps over which the learning rate rises."""
    clip_norm: float = Field(default=5.0, gt=0)
    """Gradients are scaled down to this norm."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """bf16: bfloat16 autocast where the processor has units for it, else float32; fp32: float32 throughout."""
    crop_area: tuple[float, float] = (0.3, 1.0)
    """Random crop, share of the picture's area."""
    flip: bool = True
    """Mirror pictures at random, in every training. Turn it off where left and right mean something."""


class SearchOptions(Section):
    """How a picture is searched, whichever maps are asked for."""

    scales: Scales = (0.5, 0.75, 1.0)
    """Sizes the picture is searched at, relative to its own, rounded to whole patches; each mirrored too."""
    affinity: tuple[Affine, ...] = ("attention", "patch")
    """What spreads a map over similar patches, one after the other: patch affinity, self-attention, or their product."""
    affinity_power: float = Field(default=6.0, gt=0)
    """Power of the patch affinity before its rows are normalised."""
    pixel_steps: int = Field(default=10, ge=0)
    """How often refined maps are averaged over neighbouring pixels of similar colour; 0: never."""
    pixel_distances: tuple[Positive, ...] = (1, 2, 4, 8)
    """How far away those neighbours are, in cells of the canvas."""
    gamma: float = Field(default=1.0, gt=0)
    """Power of the finished maps; under 1 it lifts the body of an object that one telling part outshines."""
    canvas_stride: Positive = 4
    """Maps of all scales meet, and are stored, at one cell per this many pixels in either direction."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """As `train.precision`."""


class SearchConfig(SearchOptions):
    """Turning a trained network into seeds."""

    maps: str = "own"
    """Which maps become masks; own: the method's own."""
    kinds: tuple[str, ...] = ()
    """Which maps are made and scored; empty: all that the method offers."""


class NoAffinity(Section):
    """Seeds as they are; pixel affinity has refined them already."""

    kind: Literal["none"] = "none"
    """Learned pixel affinity, from seeds to maps that end where objects end. none: not used; head: a small head on the
    classifier's ViT; net: PSA's AffinityNet on ResNet38."""


class HeadAffinity(Section):
    """A small head, trained on the classifier's ViT."""

    kind: Literal["head"] = "head"
    """Learned pixel affinity, from seeds to maps that end where objects end. none: not used; head: a small head on the
    classifier's ViT; net: PSA's AffinityNet on ResNet38."""
    crop: Positive = 224
    """Side of the training crops in pixels."""
    train: AffinityTrainConfig = AffinityTrainConfig()


class NetAffinity(HeadAffinity):
    """PSA's AffinityNet."""

    kind: Literal["net"] = "net"  # type: ignore[assignment]
    """Learned pixel affinity, from seeds to maps that end where objects end. none: not used; head: a small head on the
    classifier's ViT; net: PSA's AffinityNet on ResNet38."""
    channels: float = Field(default=1.0, gt=0)
    """Factor on ResNet38's channels."""
    weights: str | None = None
    """Pretrained ResNet38 (res38_cls.pth)."""


AffinityConfig = NoAffinity | HeadAffinity | NetAffinity
AFFINITIES: dict[str, type[Section]] = {"none": NoAffinity, "head": HeadAffinity, "net": NetAffinity}


class MasksConfig(Section):
    """From maps to pseudo masks."""

    crf: str = "clip-es"
    """Dense-CRF preset: psa, mctformer-test, irn, clip-es, toco, or none."""
    crf_steps: int = Field(default=10, ge=0)
    """Steps of that CRF, and of the one for the labels that the affinity learns from."""
    margin: Fraction = 0.25
    """Ignore pixels (255) whose label changes when the background threshold moves by this fraction. 0: ignore none."""


class SegmenterTrainConfig(DenseTrainConfig):
    """Training the segmentation network."""

    new_lr_scale: float = Field(default=5.0, gt=0)
    """Factor on the learning rate of what has no pretrained weights."""


class SegmentConfig(Section):
    """The segmentation network, learned from pseudo masks."""

    size: int = Field(default=320, ge=0)
    """Resize pictures to size x size pixels in area, in training and afterwards; 0: their own size, as published."""
    crop: Positive = 224
    """Side of the training crops in pixels."""
    resize: tuple[float, float] = (0.6, 1.4)
    """Random scale of the pictures, relative to that size, before the crop."""
    weights: str | None = None
    """Backbone to start from. Default: the trained classifier's (vit), from scratch (resnet38)."""
    rounds: Positive = 1
    """2 and more: train again on the network's own masks of the training pictures (self-training)."""
    train: SegmenterTrainConfig = SegmenterTrainConfig()
    scales: Scales = (0.75, 1.0, 1.25)
    """At the test: scales relative to that size, each mirrored too. Changing it trains nothing again."""
    crf: str = "mctformer-test"
    """At the test: CRF preset, or none. Changing it trains nothing again."""


class ViTSegment(SegmentConfig):
    network: Literal["vit"] = "vit"
    """vit: a light decoder on the classifier's ViT; resnet38: DeepLab-V1, as the paper has it."""
    presence: float = Field(default=1.0, ge=0)
    """Weight of the loss that teaches which classes a picture holds at all; 0: no such head."""


class DeepLabSegment(SegmentConfig):
    network: Literal["resnet38"] = "resnet38"
    """vit: a light decoder on the classifier's ViT; resnet38: DeepLab-V1, as the paper has it."""
    channels: float = Field(default=1.0, gt=0)
    """Factor on ResNet38's channels."""


NETWORKS: dict[str, type[SegmentConfig]] = {"vit": ViTSegment, "resnet38": DeepLabSegment}

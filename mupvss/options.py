"""The options that all methods share, frozen and strict: a key that is not here is an error.

Each part of the code receives only its own section. What only one method, one source of pictures, one kind of affinity or one
segmentation network reads stands in a class of its own, so that nothing is accepted and then ignored. Those of a method live with
the method (`methods/`). Paths are kept as written; a relative path means relative to where the command is run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

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
    removed: ClassVar[dict[str, Any]] = {}
    """Options of earlier versions that were removed, with the value under which everything is computed as it is now. They stay
    part of what identifies a finished stage, so that it stays valid."""


class ScenesConfig(Section):
    """The drawings themselves."""

    seed: int = 0
    """Seed of the drawings; another seed is another data set."""
    size: Positive = 96
    """Side of a picture in pixels."""
    train: Positive = 8000
    """Number of training pictures (drawn when asked for, never stored)."""
    seeds: Positive = 200
    """Number of training pictures that get masks and are scored."""
    val: Positive | None = added(None, neutral=None)
    """Number of other pictures that the segmentation network is tested on. Default: as many as `seeds`."""
    world: Literal["six", "many"] = added("six", neutral="six")
    """Which things are drawn: the six of the built-in data set, or the many other kinds that the drawn backbone learned from."""


class Pictures(Section):
    """What every source of pictures has."""

    classes: tuple[str, ...] = ()
    """Class names, in order of the class ids 1, 2, ... Empty: all classes of the source."""
    seed_every: Positive = 1
    """Search only every n-th picture, for quick comparisons."""
    unreadable: Literal["stop", "skip"] = "stop"
    """What to do about pictures and masks that cannot be read or found: stop before training and list them, or skip them."""
    background: Literal["some", "none"] = added("some", neutral="some")
    """none: every pixel belongs to one of its picture's tags (land cover, tissue, whole scenes); some: part of a picture may
    belong to none of them."""


class ScenesData(Pictures):
    """Pictures that the product draws itself."""

    source: Literal["scenes"] = "scenes"
    """scenes: drawn by the product; voc and coco: the folder layouts of these data sets; folder: your own pictures."""
    other_classes: Literal["background", "ignore"] = "background"
    """How to treat classes of the masks that are not in `classes`."""
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
    """How to treat classes of the masks that are not in `classes`."""
    train_split: str = "train"
    """Split whose pictures train the classifier."""
    seed_split: str = "train"
    """Split whose pictures get maps and pseudo-masks."""
    seed_without: str | None = None
    """Exclude the pictures of this split from seed_split, so that you can tune on them."""
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
    """How to treat categories that are not in `classes` in the masks."""
    crowd: Literal["ignore", "class"] = "ignore"
    """How to treat crowd regions in the masks: ignore them, or count them as their class."""
    train_split: str = "train2014"
    """Split whose pictures train the classifier: train2014 or train2017."""
    seed_split: str = "train2014"
    """Split whose pictures get maps and pseudo-masks."""
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
    """Tags of a validation set, in the forms of `tags`: the segmentation network is tried on its pictures. Default: on those with
    a mask."""
    masks: str = "SegmentationClass"
    """Folder with palette PNGs of true masks, if you have any; used for scores only. Looked for in data.root, then in the
    current folder."""
    separator: str | None = None
    """Separator of the tags in a cell of a CSV, such as a blank. Default: any of | ; and comma."""
    tag_columns: tuple[str, ...] = ()
    """Names of the columns of a CSV that hold tags, if they are not called tags, labels or the like."""


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
    """Side of the training pictures in pixels; any size works afterwards."""
    gwrp_decay: Annotated[float, Field(gt=0, le=1)] = 0.995
    """Decay per rank of the global weighted rank pooling, for `gwrp_patches` patches. 1: the mean."""
    gwrp_patches: int = Field(default=784, ge=0)
    """Number of patches that `gwrp_decay` is given for; it is rescaled for other numbers. 0: never rescaled."""


class ViTConfig(ModelConfig):
    """A vision transformer."""

    backbone: str = "tiny"
    """tiny, small, base, large (ViT-Ti/S/B/L), or micro (for drawings and for training from scratch on a CPU)."""
    patch_size: Positive = 16
    """Side of a patch in pixels."""
    weights: str | None = None
    """Pretrained weights: a path, a URL (https://...#sha256=...), a hub name (timm/deit_...), or package:drawn (a micro ViT that
    learned from drawings). Empty: train from scratch."""
    weights_pixels: Literal["imagenet", "half", "clip"] = "imagenet"
    """How pixels were normalised when the weights were trained: by ImageNet's mean and deviation, by 0.5 and 0.5 (AugReg), or by
    CLIP's (EVA-02)."""
    registers: int = Field(default=0, ge=0)
    """Number of register tokens; must match the weights."""
    layer_scale: bool = False
    """LayerScale, a learned factor per channel on residual branches; must match the weights (DINOv2 has it)."""
    position: Literal["table", "rotary"] = added("table", neutral="table")
    """How patches know their place: by a table that is learned, or by rotation; must match the weights (DINOv3 has rotary)."""
    family: Literal["vit", "eva02"] = added("vit", neutral="vit")
    """eva02: gated MLPs, and places by table and rotation; must match the weights."""
    drop_path: Fraction = 0.1
    """Stochastic depth: rate in the last block, rising linearly from 0."""


class CNNConfig(ModelConfig):
    """A convolutional network."""

    backbone: Literal["resnet38", "efficientnet-lite0"] = "efficientnet-lite0"
    weights: str | None = None
    """Pretrained weights: a path, a URL (https://...#sha256=...), or package:efficientnet-lite0. An empty text: from scratch."""
    channels: float = Field(default=1.0, gt=0)
    """resnet38: factor on every number of channels; 0.125 runs on a CPU."""
    frozen_stages: int = Field(default=0, ge=0)
    """Number of first stages that are not trained."""

    @property
    def patch_size(self) -> int:
        """Its stride, in pixels."""
        return {"resnet38": 8, "efficientnet-lite0": 16}[self.backbone]


class PEMConfig(Section):
    """Prototype Embedding Module: how prototypes and patches enrich each other in a block."""

    blocks: Literal["all", "late", "last", "none"] = "none"
    """Blocks with a PEM; late: the last third; last: the last block."""
    logits: Literal["cosine", "dot"] = "cosine"
    """Similarity of two tokens; dot is the paper's."""
    temperature: float = Field(default=0.1, gt=0)
    """Divisor of the logits before the softmax."""
    threshold: float = 0.0
    """Ignore similarities at or under it (tau_PEM)."""
    gate: Literal["learned", "open"] = "learned"
    """learned: one factor per block, starting at zero; open: full strength, as printed."""
    enriched: Literal["both", "prototypes", "patches"] = "both"
    """Which tokens are enriched: both, as printed, or one side."""
    softmax: Literal["all", "other"] = added("all", neutral="all")
    """Tokens that share a softmax: all, as printed; or only those of the other side, so that the many patches leave the few
    prototypes their weight (ours)."""
    nearest: int = added(0, neutral=0, ge=0)
    """A token takes only from so many tokens of the other side, the most similar ones (ours). 0: from all."""
    lengths: Literal["own", "matched"] = added("own", neutral="own")
    """Length of what a token takes: as it comes; or the token's own length, since patches and prototypes of a pretrained ViT
    differ in length (ours)."""


class DenseTrainConfig(Section):
    """Learning from a label per pixel. Whether pictures are mirrored is `train.flip`."""

    image_steps: Positive = 12_800
    """Number of pictures seen during training; steps = image_steps / batch_size."""
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
    """Number of pictures seen during training; steps = image_steps / batch_size."""
    batch_size: Positive = 32
    """Pictures per step. With fewer, lower the learning rate too."""
    lr: float = Field(default=1e-4, gt=0)
    """Highest learning rate, after the warm-up; a cosine brings it to zero."""
    new_lr_scale: float = Field(default=5.0, gt=0)
    """Factor on the learning rate of layers without pretrained weights."""
    weight_decay: float = Field(default=0.05, ge=0)
    """AdamW's, on matrices alone."""
    warmup_steps: int = Field(default=50, ge=0)
    """Steps over which the learning rate rises."""
    clip_norm: float = Field(default=5.0, gt=0)
    """Gradients are scaled down to this norm."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """bf16: bfloat16 autocast where the processor has units for it, else float32; fp32: float32 throughout."""
    crop_area: tuple[float, float] = (0.3, 1.0)
    """Range of the random crop, as a share of the picture's area."""
    flip: bool = True
    """Mirror pictures at random, in every training. Turn it off if left and right have a meaning."""


class SearchOptions(Section):
    """How a picture is searched, whichever maps are asked for."""

    scales: Scales = (0.5, 0.75, 1.0)
    """Scales of the picture at which it is searched; each is also mirrored."""
    size: int = added(0, neutral=0, ge=0)
    """Scale 1 is an area of size x size pixels, whatever the picture's own size. 0: the picture's own size, as published; small
    pictures are then searched at smaller sizes than the network was trained at, and large ones take longer."""
    tile: int = added(0, neutral=0, ge=0)
    """Side in pixels of overlapping tiles in which each scale is searched, for small things in large pictures; choose a larger
    `size` with it. 0: pictures are searched whole."""
    affinity: tuple[Affine, ...] = ("attention", "patch")
    """Affinities that refine a map, in turn: patch (similar patches), attention (self-attention), or both (product)."""
    affinity_power: float = Field(default=6.0, gt=0)
    """Power of the patch affinity, before its rows are normalised."""
    pixel_steps: int = Field(default=10, ge=0)
    """Number of times that refined maps are averaged over neighbouring pixels of similar colour. 0: never."""
    pixel_distances: tuple[Positive, ...] = (1, 2, 4, 8)
    """Distances of those neighbours, in cells of the canvas."""
    gamma: float = Field(default=1.0, gt=0)
    """Power of the finished maps. Below 1 it lifts the body of an object that one salient part outshines."""
    canvas_stride: Positive = 4
    """Maps are merged and stored at one cell per this many pixels, in both directions. With `size`, pixels of the picture at that
    size."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """As `train.precision`."""


class SearchConfig(SearchOptions):
    """Turning a trained network into seeds."""

    maps: str = "own"
    """Maps that become masks; own: the default of the method."""
    kinds: tuple[str, ...] = ()
    """Maps to make and score; empty: all that the method offers."""
    threshold: Literal["otsu", "middle", "groups"] = added("otsu", neutral="otsu")
    """How the background threshold is chosen without masks. otsu: where the values of all pixels fall apart into two groups;
    groups: where the highest of three groups begins, for small things on plain ground; middle: between that and the median of the
    pictures' own, for all kinds of pictures."""
    given: Path | None = added(None, neutral=None)
    """Folder with another method's maps or masks, used in place of a search: one file per picture, .npy of MCTformer, PSA or IRN,
    .npz, or palette .png."""


class NoAffinity(Section):
    """Seeds as they are; pixel affinity has refined them already."""

    kind: Literal["none"] = "none"
    """Learned pixel affinity, which refines the maps. none; head: a small head on the classifier's ViT; net: PSA's."""


class HeadAffinity(Section):
    """A small head, trained on the classifier's ViT."""

    kind: Literal["head"] = "head"
    """Learned pixel affinity, which refines the maps. none; head: a small head on the classifier's ViT; net: PSA's."""
    crop: Positive = 224
    """Side of the training crops in pixels."""
    train: AffinityTrainConfig = AffinityTrainConfig()


class NetAffinity(HeadAffinity):
    """PSA's AffinityNet."""

    kind: Literal["net"] = "net"  # type: ignore[assignment]
    """Learned pixel affinity, which refines the maps. none; head: a small head on the classifier's ViT; net: PSA's."""
    channels: float = Field(default=1.0, gt=0)
    """Factor on ResNet38's channels."""
    weights: str | None = None
    """Pretrained ResNet38 (res38_cls.pth)."""


AffinityConfig = NoAffinity | HeadAffinity | NetAffinity
AFFINITIES: dict[str, type[Section]] = {"none": NoAffinity, "head": HeadAffinity, "net": NetAffinity}


class MasksConfig(Section):
    """From maps to pseudo-masks."""

    crf: str = "clip-es"
    """Dense-CRF preset: psa, mctformer-test, irn, clip-es, toco, or none."""
    crf_steps: int = Field(default=10, ge=0)
    """Iterations of that CRF, and of the CRF for the affinity's labels."""
    crf_pixels: Positive = added(2_000_000, neutral=2_000_000)
    """Larger pictures are reduced to at most this many pixels for those CRFs, and their masks are enlarged again."""
    margin: Fraction = 0.25
    """Ignore pixels (255) whose label changes when the background threshold moves by this fraction. 0: ignore none."""


class Licences(Section):
    """Kept in networks and their model cards; no result depends on them."""

    weights: str | None = None
    """Licence of the pretrained weights, such as apache-2.0. Default: what the hub's model card or their publisher says."""
    pictures: str | None = None
    """Licence of the pictures, if you want to state it."""


class SegmenterTrainConfig(DenseTrainConfig):
    """Training the segmentation network."""

    new_lr_scale: float = Field(default=5.0, gt=0)
    """Factor on the learning rate of layers without pretrained weights."""


class CrossfitConfig(Section):
    """Masks drawn by networks that did not learn them, in place of the pseudo-masks (cross-fitting)."""

    folds: Literal[0, 2, 3, 4, 5] = 0
    """Number of parts. The pictures of each part get their masks, with their tags known, from a segmentation network that learned
    the pseudo-masks of the other parts. 0: the pseudo-masks are the masks of the run."""
    image_steps: Positive | None = None
    """Number of pictures that each of these networks sees during training. Default: segment.train.image_steps."""
    agreement: Fraction = 0.5
    """A class whose new masks overlap less than this with its pseudo-masks (IoU over all pictures) keeps its pseudo-masks."""


class SegmentConfig(Section):
    """The segmentation network, learned from pseudo-masks."""

    removed: ClassVar[dict[str, Any]] = {"rounds": 1}
    size: int = Field(default=320, ge=0)
    """Resize pictures to an area of size x size pixels, in training and at test time. 0: keep their size, as published."""
    crop: Positive = 224
    """Side of the training crops in pixels."""
    resize: tuple[float, float] = (0.6, 1.4)
    """Range of the random scale, relative to that size, before the crop."""
    weights: str | None = None
    """Pretrained backbone. Default: the trained classifier's (vit), or from scratch (resnet38)."""
    loss: Literal["cross_entropy", "collision"] = added("cross_entropy", neutral="cross_entropy")
    """cross_entropy: at the sure pixels, each weighed by its confidence; collision: at all pixels, where an unsure one may have
    its label or that of any other tag (soft labels; after a start with the cross-entropy)."""
    train: SegmenterTrainConfig = SegmenterTrainConfig()
    scales: Scales = (0.75, 1.0, 1.25)
    """Scales at test time, relative to that size; each is also mirrored. Changing it retrains nothing."""
    crf: str = "mctformer-test"
    """Dense-CRF preset at test time, or none. Changing it retrains nothing."""


class ViTSegment(SegmentConfig):
    network: Literal["vit"] = "vit"
    """vit: a light decoder on the classifier's ViT; resnet38: DeepLab-V1, as the paper has it."""
    decoder: str | None = added(None, neutral=None)
    """Trained segmentation network (path, URL, hub name or package:drawn) whose decoder this one starts from. Default: a new
    decoder."""
    presence: float = Field(default=1.0, ge=0)
    """Weight of the image-level loss (which classes are in the picture). 0: no image-level head."""


class DeepLabSegment(SegmentConfig):
    network: Literal["resnet38"] = "resnet38"
    """vit: a light decoder on the classifier's ViT; resnet38: DeepLab-V1, as the paper has it."""
    channels: float = Field(default=1.0, gt=0)
    """Factor on ResNet38's channels."""


NETWORKS: dict[str, type[SegmentConfig]] = {"vit": ViTSegment, "resnet38": DeepLabSegment}

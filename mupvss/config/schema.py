"""Every option of the product, frozen and strict: a key that is not here is an error.

Each part of the code receives only its own section. Paths are kept as written; a relative path means relative to
where the command is run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Base of every section: immutable, no unknown keys, no silent conversion of text to numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ScenesConfig(Section):
    """The built-in drawn pictures."""

    seed: int = 0
    """Seed of the drawings; another seed is another data set."""
    size: Positive = 96
    """Side of a picture in pixels."""
    train: Positive = 8000
    """Number of training pictures (drawn when asked for, never stored)."""
    seeds: Positive = 200
    """Number of pictures, a part of the training pictures, that get seeds and are scored."""


class DataConfig(Section):
    """Where pictures, tags and masks come from."""

    source: Literal["scenes", "voc", "coco", "folder"] = "scenes"
    """scenes: drawn by the product; voc and coco: the folder layouts of these data sets; folder: own pictures."""
    root: Path = Path()
    """voc: the folder that holds JPEGImages; coco: the one that holds annotations; folder: the folder of pictures."""
    tags: Path | None = None
    """Tags: .csv or .jsonl (picture, tags), COCO or Label Studio .json, CVAT .xml, a folder of VOC's XML. None: VOC annotations,
    or one folder per tag."""
    classes: tuple[str, ...] = ()
    """Class names, in order of the class ids 1, 2, ... Empty: all classes of the source."""
    other_classes: Literal["background", "ignore"] = "background"
    """What the masks' classes outside `classes` count as."""
    masks: str = "SegmentationClass"
    """voc: name of the folder with the masks; folder: folder with palette PNGs, if any."""
    crowd: Literal["ignore", "class"] = "ignore"
    """coco: what crowd regions count as in the masks that score: nothing, or their class."""
    train_split: str = "train"
    """voc: split list whose pictures train the classifier; coco: train2014 or train2017."""
    val_split: str = "val"
    """voc, coco: split that the segmentation network is scored on."""
    seed_every: Positive = 1
    """Only every n-th picture gets seeds and is scored, for quick comparisons."""
    seed_split: str = "train"
    """voc, coco: split whose pictures get seeds and pseudo masks."""
    seed_without: str | None = None
    """voc: split list whose pictures are left out of those, so that the segmentation network can be tuned on them."""
    val_tags: Path | None = None
    """folder: table, like `tags`, of the pictures that the segmentation network is tried on; None: those with a mask."""
    score_split: str | None = None
    """voc: split list, a part of that, whose masks score them; None: every mask there is."""
    scenes: ScenesConfig = ScenesConfig()
    """Only for source = scenes."""


class PEMConfig(Section):
    """Prototype Embedding Module: how prototypes and patches enrich each other in a block."""

    blocks: Literal["all", "late", "none"] = "all"
    """Which blocks have one; late: the last third."""
    logits: Literal["cosine", "dot"] = "cosine"
    """Similarity of two tokens; dot is the paper's."""
    temperature: float = Field(default=0.1, gt=0)
    """Logits are divided by it before the softmax."""
    threshold: float = 0.0
    """Similarities at or under it take no part (tau_PEM)."""
    gate: Literal["learned", "open"] = "learned"
    """learned: one factor per block, starting at zero; open: full strength, as printed."""
    enriched: Literal["both", "prototypes", "patches"] = "both"
    """What is added to: both, as printed, or one side alone."""


class ModelConfig(Section):
    """The network."""

    method: Literal["mupvss", "cam", "mctformer"] = "mupvss"
    """cam: the plain patch classifier, on a ViT or a CNN; mctformer: class tokens, MCTformer and MCTformer+."""
    backbone: str = "tiny"
    """tiny, small, base (ViT-Ti/S/B), micro (for training from scratch on a CPU), resnet38 or efficientnet-lite0 (CNNs)."""
    patch_size: Positive = 16
    """Side of a patch in pixels; for a CNN its stride: 8 for resnet38, 16 for efficientnet-lite0."""
    registers: int = Field(default=0, ge=0)
    """Register tokens of the ViT, as its pretrained weights have them."""
    layer_scale: bool = False
    """Whether the ViT's residual branches have a learned factor per channel, as those of DINOv2 have."""
    channels: float = Field(default=1.0, gt=0)
    """resnet38 only: factor on every number of channels; 0.125 runs on a CPU."""
    frozen_stages: int = Field(default=0, ge=0)
    """CNN only: this many first stages keep their pretrained weights."""
    recam: bool = False
    """CNN only: ReCAM's second classifier (see losses.reactivation)."""
    attention_skip: Fraction = 0.25
    """Share of the blocks, from the first on, left out of the class attention."""
    image_size: Positive = 224
    """Side of the pictures during training, in pixels; any size works afterwards."""
    weights: str | None = None
    """Pretrained backbone: a path, a URL (https://...#sha256=...), a hub name (timm/deit_...), or package:efficientnet-lite0. An
    empty text: from scratch."""
    weights_pixels: Literal["imagenet", "half"] = "imagenet"
    """How the weights' pixels were normalised: ImageNet's mean and deviation, or half: 0.5 and 0.5, as AugReg's were. Folded
    into the patch embedding, so that there is one preprocessing."""
    global_embedding: Literal["flatten", "pool", "copy"] = "flatten"
    """Reading of the per-class convolution; copy: no global embedding, copied class tokens (Base-R)."""
    token_start: Literal["class_token", "zero"] = "class_token"
    """What the global embedding is added to."""
    global_scale: float = 0.1
    """Factor on the global embedding when it is added."""
    pem: PEMConfig = PEMConfig()
    gwrp_decay: Annotated[float, Field(gt=0, le=1)] = 0.995
    """Decay per rank of the global weighted rank pooling, at `gwrp_patches` patches."""
    gwrp_patches: int = Field(default=784, ge=0)
    """Number of patches the decay is given for; it is rescaled to the patches there are. 0: never rescaled."""
    drop_path: Fraction = 0.1
    """Stochastic depth, rising linearly over the blocks."""


class LossConfig(Section):
    """Weights and forms of the losses. The total is their weighted sum."""

    classification: float = Field(default=1.0, ge=0)
    """Weight of CLS, on the patches and on the prototypes."""
    ccp: float = Field(default=0.1, ge=0)
    cip: float = Field(default=0.1, ge=0)
    p2p: float = Field(default=1.0, ge=0)
    token_contrast: float = Field(default=0.0, ge=0)
    """MCTformer+'s contrast between class tokens."""
    reactivation: float = Field(default=0.0, ge=0)
    """ReCAM's softmax loss on class-wise features; needs model.recam."""
    reduction: Literal["mean", "sum"] = "mean"
    """Over the pairs of CCP and CIP; sum is the paper's."""
    cip_form: Literal["shifted", "literal"] = "shifted"
    """shifted: log((1+cos)/2), defined everywhere; literal: log cos."""
    tagged_only: bool = False
    """CIP compares only prototypes of classes that both pictures are tagged with."""
    p2p_pool: Literal["gwrp", "mean", "sum"] = "gwrp"
    """Pooling of the patch similarities; sum is the paper's."""
    p2p_threshold: float | None = None
    """Similarities at or under it count as zero (tau_P2P); None: no threshold."""
    p2p_affine: bool = True
    """Learned scale and bias on the pooled similarity."""
    p2p_cross: Fraction = 0.5
    """Share of P2P in which a picture is searched with the other pictures' prototypes instead of its own."""
    p2p_dense: float = Field(default=0.0, ge=0)
    """Weight of the patch-wise P2P, in which the classifier's confident patches teach the search (ours)."""
    p2p_dense_start: Fraction = 0.25
    """Share of the training after which it begins; its weight is reached linearly over as long again."""
    ramp: Fraction = 0.5
    """CCP and CIP reach their weight linearly over this share of the training."""


class TrainConfig(Section):
    """The training loop."""

    image_steps: Positive = 25_000
    """Number of pictures seen in all; steps = image_steps / batch_size."""
    batch_size: Positive = 32
    lr: float = Field(default=1e-4, gt=0)
    new_lr_scale: float = Field(default=5.0, gt=0)
    """Factor on the learning rate of what has no pretrained weights."""
    weight_decay: float = Field(default=0.05, ge=0)
    warmup_steps: int = Field(default=50, ge=0)
    clip_norm: float = Field(default=5.0, gt=0)
    precision: Literal["bf16", "fp32"] = "bf16"
    """bf16: bfloat16 autocast where the processor has units for it, else float32; fp32: float32 throughout."""
    crop_area: tuple[float, float] = (0.3, 1.0)
    """Random crop, share of the picture's area."""
    flip: bool = True
    brightness: Fraction = 0.3
    """Random brightness, +- this share."""
    workers: int | None = Field(default=None, ge=0)
    """Processes that read and augment pictures. None: one beside a processor that trains, as many as there are cores beside a
    GPU, 8 at most."""
    checkpoint_every: Positive = 100
    """Steps between resumable checkpoints."""
    snapshots: int = Field(default=0, ge=0)
    """Networks kept along the way, evenly spaced, so that a learning curve can be measured afterwards."""
    tensorboard: bool = False
    """Also log for TensorBoard (needs the extra `tensorboard`)."""


class SearchConfig(Section):
    """Turning a trained network into seeds."""

    scales: tuple[float, ...] = (1.0,)
    """Sizes the picture is searched at, relative to its own, rounded to whole patches."""
    flip: bool = True
    """Also search the mirrored picture, in the same batch."""
    maps: str = "default"
    """Which maps become masks; default: the network's own; with_classifier: MuP-VSS's search and classifier together."""
    kinds: tuple[str, ...] = ()
    """Which maps are made and scored; empty: all that the network offers."""
    global_prototypes: bool = True
    """Take the prototypes from one pass at the training's number of patches, and search every scale with them. Otherwise
    each scale uses its own, which fail on pictures much larger than those trained on."""
    decision: Literal["learned", "zero"] = "learned"
    """Under which similarity a patch is not the class at all: P2P's learned scale and bias, or a cosine of zero."""
    sharpness: float = Field(default=1.0, gt=0)
    """Power of the similarity before it is refined."""
    affinity: tuple[Literal["patch", "attention", "both"], ...] = ("attention", "patch")
    """What spreads a map over similar patches, one after the other: patch affinity, self-attention, or their product."""
    affinity_power: float = Field(default=6.0, gt=0)
    """Power of the patch affinity before its rows are normalised."""
    pixel_steps: int = Field(default=10, ge=0)
    """How often the refined maps are averaged over neighbouring pixels of like colour; 0: never."""
    pixel_distances: tuple[Positive, ...] = (1, 2, 4, 8)
    """How far away those neighbours are, in cells of the canvas."""
    gamma: float = Field(default=1.0, gt=0)
    """Power of the finished maps; under 1 it lifts the body of an object that one telling part outshines."""
    canvas_stride: Positive = 4
    """Maps of all scales meet, and are stored, at one cell per this many pixels in either direction."""
    precision: Literal["bf16", "fp32"] = "fp32"
    """As `train.precision`."""


class AffinityConfig(Section):
    """Learned pixel affinity: from seeds to maps that end where objects end."""

    kind: Literal["none", "patch", "head", "net"] = "none"
    """none: seeds as they are, which pixel affinity has refined already; patch: cosines of the classifier's patches, untrained;
    head: a small head trained on the classifier; net: PSA's AffinityNet on ResNet38."""
    radius: Positive = 5
    """Cells up to this distance are compared."""
    beta: float = Field(default=8.0, gt=0)
    """Power of the affinity in the random walk."""
    steps: int = Field(default=32, ge=0)
    """Steps of the walk."""
    crf: str = "clip-es"
    """CRF preset (or none) for the labels the affinity learns from."""
    margin: Fraction = 0.3
    """Pixels whose label a threshold this share higher or lower would change teach nothing."""
    channels: float = Field(default=1.0, gt=0)
    """net only: factor on ResNet38's channels."""
    weights: str | None = None
    """net only: pretrained ResNet38 (res38_cls.pth)."""
    crop: Positive = 224
    """Side of the training crops in pixels."""
    train: TrainConfig = TrainConfig(image_steps=3200, batch_size=8, lr=1e-3, new_lr_scale=1.0, warmup_steps=20)


class MasksConfig(Section):
    """From maps to pseudo masks."""

    crf: str = "clip-es"
    """Dense-CRF preset: psa, mctformer-test, irn, clip-es, toco, or none."""
    sharpness: float = Field(default=4.0, gt=0)
    """Power of the maps and of their threshold before they become the CRF's probabilities."""
    crf_steps: int = Field(default=10, ge=0)
    margin: Fraction = 0.25
    """Pixels become 255, which the segmentation network ignores, where a background threshold this share higher or lower would
    change their label. 0: none does."""


class SegmentConfig(Section):
    """The segmentation network, learned from pseudo masks."""

    network: Literal["vit", "resnet38"] = "vit"
    """vit: a light decoder on the classifier's backbone; resnet38: DeepLab-V1, as the paper has it."""
    channels: float = Field(default=1.0, gt=0)
    """resnet38 only: factor on its channels."""
    weights: str | None = None
    """Backbone to start from; None: the trained classifier's (vit), from scratch (resnet38)."""
    size: int = Field(default=320, ge=0)
    """Pictures are brought to size x size pixels in area, in training and afterwards; 0: their own size, as published."""
    crop: Positive = 224
    """Side of the training crops in pixels."""
    resize: tuple[float, float] = (0.6, 1.4)
    """Random scale of the pictures, relative to that size, before the crop."""
    presence: float = Field(default=1.0, ge=0)
    """vit only: weight of the loss that teaches which classes a picture holds at all; 0: no such head."""
    weigh: bool = True
    """Weigh each pixel's loss by its mask's confidence."""
    rounds: Positive = 1
    """2 and more: train again on the network's own masks of the training pictures (self-training)."""
    unsure: Fraction = 0.6
    """Pixels of those masks whose probability is under it become 255."""
    scales: tuple[float, ...] = (0.75, 1.0, 1.25)
    """Scales of the test relative to that size, with mirror."""
    crf: str = "mctformer-test"
    """CRF preset of the test, or none."""
    train: TrainConfig = TrainConfig(image_steps=12_800, batch_size=16, lr=2e-4, new_lr_scale=5.0)


class RunConfig(Section):
    """One run, from pictures to report."""

    name: str = "run"
    seed: int = 0
    """Seed of everything random but the drawings."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    threads: int = Field(default=0, ge=0)
    """CPU threads; 0: as many as there are cores."""
    baseline: bool = True
    """Also train a plain CAM in the same budget and score it."""
    limit: int | None = Field(default=None, ge=1)
    """Use only this many pictures of each split (for a quick look)."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    losses: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    search: SearchConfig = SearchConfig()
    affinity: AffinityConfig = AffinityConfig()
    masks: MasksConfig = MasksConfig()
    segment: SegmentConfig = SegmentConfig()

"""From a config to a segmentation network, and back from its checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mupvss.data.preprocess import MEAN, STD
from mupvss.errors import CheckpointError, UserError, WeightsError
from mupvss.methods.checkpoint import read_model
from mupvss.methods.earlier import modern
from mupvss.model.build import build_vit
from mupvss.model.checkpoint import fitting, load_tensors, read_header, save_tensors
from mupvss.model.cnn import ResNet38
from mupvss.model.licences import Origin, as_header, from_header, weights_origin, without_folders
from mupvss.model.pretrained import load_backbone, read_source
from mupvss.options import NETWORKS, DeepLabSegment, ModelConfig, SegmentConfig, ViTConfig, ViTSegment
from mupvss.segmentation.networks import DeepLab, ViTSegmenter

Segmenter = ViTSegmenter | DeepLab


@dataclass(frozen=True)
class SegmenterInfo:
    """What a segmentation checkpoint says about its network."""

    classes: tuple[str, ...]
    model: ModelConfig
    segment: SegmentConfig
    background: bool = True
    """Whether a pixel may belong to no class."""
    origins: tuple[Origin, ...] = ()
    """Where its weights and pictures come from, with their licences."""


def build_segmenter(config: SegmentConfig, model: ModelConfig, classes: int, classifier: Path | None) -> Segmenter:
    """The network for `classes` classes and the background. model: the classifier's; classifier: the checkpoint whose backbone it
    starts from; None: no weights are loaded (a checkpoint will fill it)."""
    if isinstance(config, DeepLabSegment):
        cnn = ResNet38(config.channels, frozen_stages=2 if config.weights else 0)
        if classifier is not None and config.weights:
            load_backbone(cnn, config.weights)
        return DeepLab(cnn, classes + 1)
    assert isinstance(config, ViTSegment)
    if not isinstance(model, ViTConfig):
        raise UserError('segment.network = "vit" needs a classifier on a ViT, and this one is a CNN; set "resnet38"')
    vit = build_vit(model, pretrained=False)
    if classifier is not None:
        if config.weights:
            load_backbone(vit, config.weights, model.weights_pixels)
        else:
            tensors, _ = read_model(classifier)
            vit.load_state_dict({k.removeprefix("backbone."): v for k, v in tensors.items() if k.startswith("backbone.")})
    network = ViTSegmenter(vit, classes + 1, presence=config.presence > 0)
    if classifier is not None and config.decoder:
        _take_decoder(network, config.decoder)
    return network


def segmenter_origins(config: SegmentConfig, classifier: tuple[Origin, ...]) -> tuple[Origin, ...]:
    """Those of a segmentation network: what its classifier began from, unless it has its own weights, and its decoder's."""
    kept = [
        origin for origin in classifier if origin.part != "backbone" or (isinstance(config, ViTSegment) and not config.weights)
    ]
    own = [weights_origin("backbone", config.weights)] if config.weights else []
    if isinstance(config, ViTSegment) and config.decoder:
        own.append(weights_origin("decoder", config.decoder))
    return (*own, *kept)


def _take_decoder(network: ViTSegmenter, source: str) -> None:
    path, trained = read_source(source)
    wanted, own = network.decoder_without_classes(), network.state_dict()
    for name in wanted:
        found, expected = trained.get(name), own[name]
        if found is None or found.shape != expected.shape:
            shape = "is missing" if found is None else f"is {tuple(found.shape)}"
            raise WeightsError(
                f"{path}: '{name}' {shape}, expected {tuple(expected.shape)}; segment.decoder needs a segmentation "
                "network on the same backbone"
            )
    network.load_state_dict(own | {name: trained[name] for name in wanted})


def save_segmenter(path: Path, network: Segmenter, info: SegmenterInfo) -> None:
    header = {
        "classes": list(info.classes),
        "model": without_folders(info.model),
        "segment": without_folders(info.segment),
        "background": info.background,
        "normalisation": {"mean": list(MEAN), "std": list(STD)},
        "origins": as_header(info.origins),
    }
    save_tensors(path, network.state_dict(), header)


def is_segmenter(path: Path) -> bool:
    return "segment" in read_header(path)


def load_segmenter(path: Path) -> tuple[Segmenter, SegmenterInfo]:
    tensors, header = load_tensors(path)
    if "segment" not in header:
        raise CheckpointError(f"{path}: not a segmentation network; run the stage 'segment' first")
    with fitting(path):
        info = segmenter_info(header)
        network = build_segmenter(info.segment, info.model, len(info.classes), None)
        network.load_state_dict(tensors)
    return network, info


def segmenter_info(header: dict[str, Any]) -> SegmenterInfo:
    """Of a header of this version, or of 0.1.0."""
    words = modern({"model": header["model"], "segment": header["segment"]}, "the checkpoint")
    segment, model = words["segment"], words["model"]
    network = segment.get("network", "vit")
    # Only the ViT of the segmentation network is the classifier's; of another one's sizes there is nothing to build.
    kind = ViTConfig if network == "vit" else ModelConfig
    known = model if network == "vit" else {key: value for key, value in model.items() if key in kind.model_fields}
    return SegmenterInfo(
        tuple(header["classes"]),
        kind.model_validate_json(json.dumps(known)),
        NETWORKS[network].model_validate_json(json.dumps(segment)),
        bool(header.get("background", True)),
        from_header(header),
    )

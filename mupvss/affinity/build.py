"""From a config to an affinity network, and its checkpoint: only what was trained, beside the classifier it stands on."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from mupvss.affinity.affinitynet import AffinityNet
from mupvss.affinity.vit_head import ViTAffinity
from mupvss.config.schema import AffinityConfig
from mupvss.engine.checkpoint import load_network, load_tensors, save_tensors
from mupvss.errors import CheckpointError
from mupvss.model.cnn_cam import CNNCAMNetwork
from mupvss.model.pretrained import load_backbone
from mupvss.model.resnet38 import ResNet38

AffinityNetwork = AffinityNet | ViTAffinity


def build_affinity(config: AffinityConfig, classifier: Path, pretrained: bool = True) -> AffinityNetwork:
    """config.kind head or net; classifier: the checkpoint that a head stands on. ValueError for a head on a CNN."""
    if config.kind == "net":
        backbone = ResNet38(config.channels, frozen_stages=2 if config.weights else 0)
        if config.weights and pretrained:
            load_backbone(backbone, config.weights)
        return AffinityNet(backbone)
    network, _ = load_network(classifier)
    if isinstance(network, CNNCAMNetwork):
        raise ValueError('affinity.kind = "head" stands on a ViT, and this classifier is a CNN; set affinity.kind = "net"')
    return ViTAffinity(network)


def save_affinity(path: Path, network: AffinityNetwork, config: AffinityConfig) -> None:
    tensors = {key: value for key, value in network.state_dict().items() if not key.startswith("classifier.")}
    save_tensors(path, tensors, {"affinity": config.model_dump(mode="json")})


def load_affinity(path: Path, config: AffinityConfig, classifier: Path) -> AffinityNetwork:
    tensors, header = load_tensors(path)
    if "affinity" not in header:
        raise CheckpointError(f"{path}: not an affinity network; run the stage 'affinity' first")
    network = build_affinity(config, classifier, pretrained=False)
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    lost = [key for key in missing if not key.startswith("classifier.")]
    if lost or unexpected:
        raise CheckpointError(f"{path}: does not fit affinity.kind = \"{config.kind}\"; run the stage 'affinity' again")
    return network


def trained_parameters(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]

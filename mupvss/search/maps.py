"""The maps a network can be asked for, each built from one forward pass. A new kind is one function and one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from mupvss.config.schema import SearchConfig
from mupvss.model.features import Features
from mupvss.search.affinity import Kind, affinity, refine
from mupvss.search.spatial_search import prototype_map

MapFunction = Callable[[Features, SearchConfig], Tensor]


def class_activation(features: Features) -> Tensor:
    """The patch classifier's logits, zero where negative (B, C, N)."""
    return features.patch_logits.float().relu()


def cam(features: Features, config: SearchConfig) -> Tensor:
    """Class activation maps alone."""
    return class_activation(features)


def cam_attention(features: Features, config: SearchConfig) -> Tensor:
    """Class activation maps, refined by self-attention: the usual transformer baseline."""
    return refine(class_activation(features), [affinity("attention", features.patches, features.patch_attention, 1.0)])


def cam_refined(features: Features, config: SearchConfig) -> Tensor:
    """Class activation maps with the very refinement the search gets."""
    return _refined(class_activation(features), features, config)


def recam(features: Features, config: SearchConfig) -> Tensor:
    """ReCAM's maps, class weights corrected by the second classifier."""
    if features.reactivated_logits is None:
        raise ValueError("this network has no second classifier; train it with model.recam = true")
    return features.reactivated_logits.float().relu()


def recam_refined(features: Features, config: SearchConfig) -> Tensor:
    """ReCAM's maps with the very refinement the search gets."""
    return _refined(recam(features, config), features, config)


def mctformer(features: Features, config: SearchConfig) -> Tensor:
    """MCTformer's own maps: class attention x CAM, square root, refined by self-attention once."""
    fused = (class_attention(features, config) * class_activation(features)).sqrt()
    return refine(fused, [affinity("attention", features.patches, features.patch_attention, 1.0)])


def prototype(features: Features, config: SearchConfig) -> Tensor:
    """The paper's search and nothing else: prototypes against patches, refined. No classifier map, no class attention."""
    return _refined(_found(features, config), features, config)


def prototype_only(features: Features, config: SearchConfig) -> Tensor:
    """The search before any refinement."""
    return _found(features, config)


def default(features: Features, config: SearchConfig) -> Tensor:
    """The search, weighed by what the prototypes attend to in the blocks, refined. No classifier map."""
    return _refined(_attended(features, config) * _found(features, config), features, config)


def without_prototype(features: Features, config: SearchConfig) -> Tensor:
    """The default maps with the prototype factor left out."""
    return _refined(_attended(features, config), features, config)


def attended_cam(features: Features, config: SearchConfig) -> Tensor:
    """Class attention x CAM (MCTformer's fusion) with the search's refinement: the default with the classifier for the search."""
    return _refined((class_attention(features, config) * class_activation(features)).sqrt(), features, config)


def class_attention(features: Features, config: SearchConfig) -> Tensor:
    """What the prototypes or class tokens attend to in the blocks, mean over heads and blocks."""
    if features.class_attention is None:
        raise ValueError("this map needs the network's attention; call it with need_attention=True")
    return features.class_attention


MAPS: dict[str, MapFunction] = {
    "default": default,
    "prototype": prototype,
    "prototype_only": prototype_only,
    "without_prototype": without_prototype,
    "attended_cam": attended_cam,
    "class_attention": class_attention,
    "mctformer": mctformer,
    "mctformer_refined": attended_cam,
    "cam": cam,
    "cam_attention": cam_attention,
    "cam_refined": cam_refined,
    "recam": recam,
    "recam_refined": recam_refined,
}
"""Which of them a network offers stands in its `kinds`."""

JOINED = {"with_classifier": ("default", "attended_cam")}
"""Kinds that are the geometric mean of two finished ones: what the search and the classifier both say (ours)."""


REFINED = frozenset(
    {"default", "prototype", "without_prototype", "attended_cam", "mctformer_refined", "cam_refined", "recam_refined"}
)
"""Kinds that are refined in full, and so by pixel affinity too; the others are shown and scored as they are, or made of these."""


def parts_of(kinds: Sequence[str]) -> list[str]:
    """The kinds that have to be made for these, each once."""
    return list(dict.fromkeys(part for kind in kinds for part in JOINED.get(kind, (kind,))))


def joined(found: dict[str, Tensor], kinds: Sequence[str]) -> dict[str, Tensor]:
    """Maps of `parts_of(kinds)`, finished and in [0, 1] -> those of `kinds`."""
    means = {kind: (found[a] * found[b]).sqrt() for kind, (a, b) in JOINED.items() if kind in kinds}
    return {kind: means[kind] if kind in means else found[kind] for kind in kinds}


def chosen_kind(kinds: Sequence[str], wanted: str) -> str:
    """The kind behind `search.maps` for a network that offers `kinds`, its own first; ValueError if it has no such maps."""
    if wanted == "default":
        return kinds[0]
    if wanted not in kinds:
        raise ValueError(f"search.maps is '{wanted}', and this network offers {', '.join(kinds)}")
    return wanted


def _attended(features: Features, config: SearchConfig) -> Tensor:
    """Square root of the class attention: it is peaked, the search is broad."""
    return class_attention(features, config).sqrt()


def _found(features: Features, config: SearchConfig) -> Tensor:
    if features.prototypes is None:
        raise ValueError("this network has no prototypes to search with")
    if config.decision == "zero" or features.decision_scale is None or features.decision_bias is None:
        found = prototype_map(features.patches, features.prototypes)
    else:
        found = prototype_map(features.patches, features.prototypes, features.decision_scale, features.decision_bias)
    return found**config.sharpness


def _refined(maps: Tensor, features: Features, config: SearchConfig) -> Tensor:
    """A CNN has no self-attention, so there the patch affinity alone refines."""
    kinds: tuple[Kind, ...] = config.affinity
    if features.patch_attention is None and kinds:
        kinds = ("patch",)
    return refine(maps, (affinity(k, features.patches, features.patch_attention, config.affinity_power) for k in kinds))

"""The maps that a network can give, each built from one forward pass. Every method says in its own file which of them it offers.

Their names follow one rule. The base is where the map comes from: `search` (prototypes against patches), `centres` (what was
found in all pictures against patches), `cam` (the patch classifier), `recam`, `attention` (what prototypes or class tokens attend
to in the blocks). The prefix `attended_` multiplies it by that attention. The suffix `_spread` averages it once over
self-attention, the usual transformer refinement; `_refined` refines it over patches by affinity, and over pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mupvss.errors import UserError
from mupvss.model.features import Features
from mupvss.options import SearchOptions
from mupvss.search.affinity import Kind, affinity, refine
from mupvss.search.spatial_search import centres_map, competition_map, prototype_map

MapFunction = Callable[[Features, SearchOptions, Any], Tensor]
"""(features, options, the method's own options) -> maps (B, C, N), >= 0, not refined."""


@dataclass(frozen=True)
class Map:
    """A kind of map."""

    title: str
    """Its name in tables and pictures."""
    make: MapFunction | None = None
    refined: bool = False
    """Whether patch and pixel affinity refine what `make` gives."""
    joins: tuple[str, str] | None = None
    """Instead of `make`: the two finished kinds of which it is the geometric mean."""
    found_by: str | None = None
    """The kind by which centres are gathered before any picture gets this one (`centres.py`)."""

    def __call__(self, features: Features, search: SearchOptions, options: Any) -> Tensor:
        assert self.make is not None
        maps = self.make(features, search, options)
        return _refined(maps, features, search) if self.refined else maps


def cam(features: Features, search: SearchOptions, options: Any) -> Tensor:
    """The patch classifier's logits, zero where negative."""
    return features.patch_logits.float().relu()


def cam_spread(features: Features, search: SearchOptions, options: Any) -> Tensor:
    """Class activation maps, spread by self-attention: the usual transformer baseline."""
    return _spread(cam(features, search, options), features)


def recam(features: Features, search: SearchOptions, options: Any) -> Tensor:
    """ReCAM's maps, class weights corrected by the second classifier."""
    if features.reactivated_logits is None:
        raise ValueError("this network has no second classifier")
    return features.reactivated_logits.float().relu()


def attention(features: Features, search: SearchOptions, options: Any) -> Tensor:
    """What the prototypes or class tokens attend to in the blocks, mean over heads and blocks."""
    if features.class_attention is None:
        raise ValueError("this map needs the network's attention; call it with need_attention=True")
    return features.class_attention


def root_attention(features: Features, search: SearchOptions, options: Any) -> Tensor:
    """Square root of the class attention, since that is peaked while the search is broad."""
    return attention(features, search, options).sqrt()


def attended_cam(features: Features, search: SearchOptions, options: Any) -> Tensor:
    """Square root of class attention x CAM: MCTformer's fusion."""
    return (attention(features, search, options) * cam(features, search, options)).sqrt()


def attended_cam_spread(features: Features, search: SearchOptions, options: Any) -> Tensor:
    """MCTformer's own maps: its fusion, spread by self-attention once."""
    return _spread(attended_cam(features, search, options), features)


def search(features: Features, search: SearchOptions, options: Any) -> Tensor:
    """The paper's search and nothing else: prototypes against patches. No classifier map, no class attention."""
    if features.prototypes is None:
        raise ValueError("this network has no prototypes to search with")
    if options.competition == "none" or features.rivals is None:
        return _decided(features, features.prototypes, options)
    share = competition_map(features.patches, features.prototypes, features.rivals)
    return share if options.competition == "alone" else share * _decided(features, features.prototypes, options)


def _decided(features: Features, prototypes: Tensor, options: Any) -> Tensor:
    if options.decision == "zero" or features.decision_scale is None or features.decision_bias is None:
        return prototype_map(features.patches, prototypes)
    return prototype_map(features.patches, prototypes, features.decision_scale, features.decision_bias)


def attended_search(features: Features, options: SearchOptions, own: Any) -> Tensor:
    """The search times the root of what the prototypes attend to in the blocks. No classifier map."""
    return root_attention(features, options, own) * search(features, options, own)


def centres(features: Features, search_options: SearchOptions, options: Any) -> Tensor:
    """The search with the centres of all pictures in place of the picture's own prototypes; with those, for a class that has no
    centres. No classifier map."""
    if features.found_centres is None or features.other_centres is None:
        raise UserError(
            "these maps need the centres of all pictures, which the stage 'seeds' gathers and this network does not have: "
            "give the folder of the run, and run 'mupvss seeds' if it was not searched yet"
        )
    found, other = features.found_centres, features.other_centres
    near, usable = centres_map(features.patches, found, other), usable_centres(found, other)
    if bool(usable.all()):
        return near
    return torch.where(usable.unsqueeze(-1), near, search(features, search_options, options))


def usable_centres(found: Tensor, other: Tensor) -> Tensor:
    """(C, K, D) and (C, L, D) -> (C,) bool: whether a class has centres of what was found and of what was not."""
    return found.abs().amax((1, 2)).gt(0) & other.abs().amax((1, 2)).gt(0)


def attended_centres(features: Features, search_options: SearchOptions, options: Any) -> Tensor:
    """The same times the root of what the prototypes attend to in the blocks. No classifier map."""
    return root_attention(features, search_options, options) * centres(features, search_options, options)


def finder_of(offered: Mapping[str, Map], kinds: Sequence[str]) -> str | None:
    """The kind by which centres must be gathered for these; None if none of them needs centres."""
    return next((finder for kind in parts_of(offered, kinds) if (finder := offered[kind].found_by) is not None), None)


def parts_of(offered: Mapping[str, Map], kinds: Sequence[str]) -> list[str]:
    """The kinds that must be made for these, each once."""
    return list(dict.fromkeys(part for kind in kinds for part in offered[kind].joins or (kind,)))


def joined(offered: Mapping[str, Map], found: dict[str, Tensor], kinds: Sequence[str]) -> dict[str, Tensor]:
    """Maps of `parts_of(kinds)`, finished and in [0, 1] -> those of `kinds`."""
    made = {}
    for kind in kinds:
        pair = offered[kind].joins
        made[kind] = found[kind] if pair is None else (found[pair[0]] * found[pair[1]]).sqrt()
    return made


def witnesses(offered: Mapping[str, Map], kind: str) -> tuple[str, str] | None:
    """The two kinds, one of the search and one of the classifier, whose agreement says how sure this kind is: those that it
    joins, or those that another kind joins it with; None if there are none."""
    pairs = [entry.joins for name, entry in offered.items() if entry.joins is not None and kind in (name, *entry.joins)]
    return pairs[0] if pairs else None


def chosen_kind(offered: Mapping[str, Map], wanted: str) -> str:
    """The kind that `search.maps` chooses from those that a method offers, its own first; UserError if it has no such maps."""
    if wanted == "own":
        return next(iter(offered))
    if wanted not in offered:
        raise UserError(f"search.maps is '{wanted}', and this method offers own, {', '.join(offered)}")
    return wanted


def asked_kinds(offered: Mapping[str, Map], wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The kinds that are made: `search.kinds`, or all that the method offers, its own first; UserError for an unknown one."""
    unknown = [kind for kind in wanted if kind not in offered]
    if unknown:
        raise UserError(f"search.kinds has '{unknown[0]}', and this method offers {', '.join(offered)}")
    return wanted or tuple(offered)


def _spread(maps: Tensor, features: Features) -> Tensor:
    return refine(maps, [affinity("attention", features.patches, features.patch_attention, 1.0)])


def _refined(maps: Tensor, features: Features, options: SearchOptions) -> Tensor:
    """A CNN has no self-attention, so there the patch affinity alone refines."""
    kinds: tuple[Kind, ...] = options.affinity
    if features.patch_attention is None and kinds:
        kinds = ("patch",)
    return refine(maps, (affinity(k, features.patches, features.patch_attention, options.affinity_power) for k in kinds))

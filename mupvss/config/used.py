"""Which options a method reads: a change of the others is no change of its training."""

from __future__ import annotations

from typing import TypeVar

from mupvss.config.schema import LossConfig, ModelConfig, Section

T = TypeVar("T", bound=Section)

_OF_PROTOTYPES = frozenset({"global_embedding", "token_start", "global_scale", "pem"})
_UNREAD: dict[str, frozenset[str]] = {
    "mupvss": frozenset({"recam"}),
    "mctformer": _OF_PROTOTYPES | {"recam"},
    "cam": _OF_PROTOTYPES | {"attention_skip"},
}
_PROTOTYPE_LOSSES = frozenset(
    {"ccp", "cip", "p2p", "reduction", "cip_form", "tagged_only", "p2p_pool", "p2p_threshold", "p2p_affine", "p2p_cross"}
    | {"p2p_dense", "p2p_dense_start", "ramp"}
)
# What is not read, not what is: an option that is forgotten here costs a training, and never passes off another one's.
_UNREAD_LOSSES: dict[str, frozenset[str]] = {
    "mupvss": frozenset({"token_contrast", "reactivation"}),
    "mctformer": _PROTOTYPE_LOSSES | {"reactivation"},
    "cam": _PROTOTYPE_LOSSES | {"token_contrast"},
}


def used_options(model: ModelConfig, losses: LossConfig) -> tuple[ModelConfig, LossConfig]:
    """Both with the options at their defaults that `model.method` does not read."""
    return _at_defaults(model, _UNREAD[model.method]), _at_defaults(losses, _UNREAD_LOSSES[model.method])


def _at_defaults(section: T, names: frozenset[str]) -> T:
    return section.model_copy(update={name: type(section).model_fields[name].default for name in names})

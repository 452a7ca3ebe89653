"""Which options change a result: those that a method does not read do not, nor do those of how a training is run."""

from __future__ import annotations

from typing import TypeVar

from mupvss.config.schema import LossConfig, ModelConfig, Section, TrainConfig

T = TypeVar("T", bound=Section)

WITHOUT_EFFECT = frozenset({"workers", "checkpoint_every", "tensorboard", "snapshots"})
"""Of every training's options those that do not change what comes out."""
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


def effective(section: T) -> T:
    """The section with the options at their defaults that change no result, its own and those of the sections in it."""
    if isinstance(section, TrainConfig):
        return _at_defaults(section, WITHOUT_EFFECT)
    parts = {name: getattr(section, name) for name in type(section).model_fields}
    return section.model_copy(update={name: effective(part) for name, part in parts.items() if isinstance(part, Section)})


def _at_defaults(section: T, names: frozenset[str]) -> T:
    return section.model_copy(update={name: type(section).model_fields[name].default for name in names})

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
_LOSSES: dict[str, frozenset[str]] = {
    "mupvss": frozenset(LossConfig.model_fields) - {"token_contrast", "reactivation"},
    "mctformer": frozenset({"classification", "token_contrast"}),
    "cam": frozenset({"classification", "reactivation"}),
}


def used_options(model: ModelConfig, losses: LossConfig) -> tuple[ModelConfig, LossConfig]:
    """Both with the options at their defaults that `model.method` does not read."""
    unread = frozenset(LossConfig.model_fields) - _LOSSES[model.method]
    return _at_defaults(model, _UNREAD[model.method]), _at_defaults(losses, unread)


def _at_defaults(section: T, names: frozenset[str]) -> T:
    return section.model_copy(update={name: type(section).model_fields[name].default for name in names})

"""Global weighted rank pooling (Kolesnikov & Lampert 2016), with a decay that follows the number of patches."""

from __future__ import annotations

from torch import Tensor, arange


def rescaled_decay(decay: float, reference: int, patches: int) -> float:
    """Decay per rank for `patches` patches that weighs the same *share* of them as `decay` does for `reference`.

    decay ** (reference / patches): 0.996 at 784 patches is 0.984 at 196. A reference of 0 keeps the decay.
    """
    return decay if reference == 0 else decay ** (reference / patches)


def gwrp(scores: Tensor, decay: float) -> Tensor:
    """Pools scores (..., N) over their last dimension to (...): sorted descending, weighted decay**rank, normalised."""
    weights = decay ** arange(scores.shape[-1], device=scores.device, dtype=scores.dtype)
    ranked = scores.sort(dim=-1, descending=True).values
    return (ranked * weights).sum(-1) / weights.sum()

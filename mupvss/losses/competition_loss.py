"""Competition: at every patch, the prototypes of the picture's tags win over those of all other classes (ours, not the paper's).

Where every pixel belongs to a tag, the label of each patch is known up to the choice among the picture's tags. P2P judges every
class by itself and only asks whether it is somewhere; this loss asks every patch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mupvss.ops import full_precision, part_ties, rival_logits


def competition(patches: Tensor, prototypes: Tensor, tags: Tensor) -> Tensor:
    """-log of the share of the tagged classes in a softmax over all prototypes, mean over patches and pictures.

    Args:
        patches: F, (B, N, D), of any float type.
        prototypes: P of all classes, (B, C, D).
        tags: (B, C) of 0 and 1.

    Returns:
        A scalar, at least 0. A picture without a tag, or with all of them, adds 0.
    """
    rivals = part_ties(full_precision(prototypes))
    logits = rival_logits(patches, rivals, rivals)
    tagged = tags.bool()
    open_question = tagged.any(1) & ~tagged.all(1)
    allowed = (tagged | ~open_question.unsqueeze(1)).unsqueeze(-1)
    share = logits.masked_fill(~allowed, -torch.inf).logsumexp(1) - logits.logsumexp(1)  # (B, N), 0 where all are allowed
    return -share.mean()

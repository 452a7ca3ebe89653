"""The losses, each a plain function of tensors in a file of its own."""

from mupvss.losses.ccp_loss import ccp
from mupvss.losses.cip_loss import cip
from mupvss.losses.classification_loss import classification
from mupvss.losses.competition_loss import competition
from mupvss.losses.p2p_loss import p2p

__all__ = ["ccp", "cip", "classification", "competition", "p2p"]

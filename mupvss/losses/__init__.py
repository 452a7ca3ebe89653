"""The four losses as plain functions of tensors, and their weighted sum."""

from mupvss.losses.ccp import ccp
from mupvss.losses.cip import cip
from mupvss.losses.classification import classification
from mupvss.losses.p2p import p2p

__all__ = ["ccp", "cip", "classification", "p2p"]

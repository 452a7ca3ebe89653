"""MuP-VSS: segmentation masks from image tags, by multi-label prototype visual spatial search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mupvss.predictor import Predictor, load

__version__ = "0.1.0"
__all__ = ["Predictor", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """`load` and `Predictor`, imported on first use so that the command line starts without loading PyTorch."""
    if name in ("Predictor", "load"):
        from mupvss import predictor

        return getattr(predictor, name)
    raise AttributeError(f"module 'mupvss' has no attribute '{name}'")

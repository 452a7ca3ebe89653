"""MuP-VSS: segmentation masks from image tags, by multi-label prototype visual spatial search."""

__version__ = "0.1.0"

"""The segmentation network: learned from pseudo-masks, needs no tags."""

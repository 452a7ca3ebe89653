"""COCO's layout: annotations/instances_SPLIT.json beside a folder SPLIT of pictures."""

"""Tags from COCO's instance annotations: every category with an annotation in the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mupvss.errors import DataError


def tags_from_coco(content: dict[str, Any], path: Path) -> dict[str, frozenset[str]]:
    """Pictures without an annotation are negatives."""
    try:
        names = {int(category["id"]): str(category["name"]) for category in content["categories"]}
        files = {int(image["id"]): str(image["file_name"]) for image in content["images"]}
        found: dict[str, set[str]] = {name: set() for name in files.values()}
        if len(found) != len(files):
            raise DataError(f"{path}: two images have the same file_name")
        for annotation in content["annotations"]:
            image, category = int(annotation["image_id"]), int(annotation["category_id"])
            if image not in files or category not in names:
                raise DataError(
                    f"{path}: annotation {annotation.get('id')} names image {image} or category {category}, not listed"
                )
            found[files[image]].add(names[category])
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not COCO's instance format ({type(error).__name__}: {error})") from None
    return {name: frozenset(tags) for name, tags in found.items()}

"""Where a network began, and under which licences: kept in checkpoints, ONNX files and model cards.

The licence of weights is what the user says, else what their model card on the hub says, else what is known of their publisher,
else not known. Nothing is guessed from a file's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PureWindowsPath
from typing import Any
from urllib.parse import urlsplit

from mupvss.errors import WeightsError
from mupvss.files import hash_of
from mupvss.model.pretrained import FILES, locate
from mupvss.options import Section
from mupvss.runtime.processes import processes

KNOWN: tuple[tuple[str, str], ...] = (
    (r"package:(drawn|efficientnet-lite0)$", "apache-2.0"),
    (r"https://dl\.fbaipublicfiles\.com/(deit|dino|dinov2/dinov2_vit)", "apache-2.0"),
    (r"https://dl\.fbaipublicfiles\.com/(mae|moco-v3)/", "cc-by-nc-4.0"),
    (
        r"(https://dl\.fbaipublicfiles\.com/dinov3/|https://dinov3\.llamameta\.net/|facebook/dinov3-|timm/.*dinov3)",
        "dinov3-license",
    ),
    (r"(timm/deit|facebook/deit-|facebook/dino-|facebook/dinov2-|timm/vit_.*\.(augreg|dino|lvd142m))", "apache-2.0"),
    (r"timm/eva02", "mit"),
)
"""Sources whose publishers state a licence, as patterns, and its name as the hub writes it."""
NO_PATHS = ("package:", "https://", "http://")
"""How sources begin that are neither files nor hub names."""
CONTENTS = {
    "4ad512ff59af3206b5c848afea50131e3362d2d0dddae070fd4164d3cc399d2c": ("timm/deit_tiny_patch16_224.fb_in1k", "apache-2.0"),
}
"""SHA-256 of files that are published under a licence: their name and the licence."""
FREE = re.compile(r"^(apache-?2(\.0)?|mit|bsd(-[23]-clause)?|isc|zlib|unlicense|cc0(-1\.0)?|cc-by(-[234]\.0)?|public-domain)$")
"""Licences under which what was made with the weights may be shared by anyone who names them."""
CONDITIONS: tuple[tuple[str, str], ...] = (
    (r"(?<![a-z])nc(?![a-z])|non-?commercial", "only for uses that are not commercial"),
    (r"(?<![a-z])nd(?![a-z])|no-?deriv", "without changes, so no network that learned from it"),
    (r"(?<![a-z])sa(?![a-z])|gpl", "only under the same licence"),
    (r"dinov3", "only together with its own terms"),
    (r"research|academic", "only for research"),
)
"""Marks in the name of a licence, and what they allow."""


@dataclass(frozen=True)
class Origin:
    """One thing that a network was made from."""

    part: str
    """backbone, decoder, or pictures."""
    source: str = ""
    """Hub name, URL, package:NAME or file name (without its folders) of weights; empty for pictures."""
    sha256: str = ""
    """Of the weights' file."""
    licence: str | None = None
    """As the hub names it; None: not known."""

    def condition(self) -> str | None:
        """What stands in the way of sharing a network made from it, as a part of a sentence; None: nothing."""
        if self.licence is None:
            return "its licence is not known"
        plain = re.sub(r"[\s_]+", "-", self.licence.strip().casefold()).removesuffix("-license").removesuffix("-licence")
        if FREE.match(plain):
            return None
        allowed = [text for mark, text in CONDITIONS if re.search(mark, plain)]
        return (
            f"{self.licence} allows that {' and '.join(allowed)}"
            if allowed
            else f"the terms of {self.licence} are not known here"
        )

    def __str__(self) -> str:
        named = f"{self.part}: {self.source}" if self.source else self.part
        return f"{named} ({self.licence or 'licence not known'})"


def weights_origin(part: str, source: str, licence: str | None = None) -> Origin:
    """The origin of pretrained weights, given as in `model.weights`. licence: what the user says. WeightsError as `locate`."""
    with processes().main_first():  # the others find it in the cache
        path = locate(source)
    content = hash_of(path)
    name, known = CONTENTS.get(content, (shortened(source), None))
    found = licence or known or _on_the_hub(source) or _by_publisher(source)
    return Origin(part, name, content, found)


def shortened(source: str) -> str:
    """A source as it may be shown to others: a file without its folders, a URL without passwords and what follows the path."""
    if source.startswith(("https://", "http://")):
        parts = urlsplit(source)
        return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
    name = PureWindowsPath(source).name  # which knows both kinds of separators
    on_the_hub = source.count("/") == 1 and not source.startswith(("/", ".", "~")) and not _is_file(source)
    return source if source.startswith("package:") or (on_the_hub and Path(name).suffix.lower() not in FILES) else name


def without_folders(section: Section) -> dict[str, Any]:
    """The values of a section for a header, in which the weights' places on this computer are left out."""
    values = section.model_dump(mode="json")
    return values | {name: shortened(values[name]) for name in ("weights", "decoder") if values.get(name)}


def _is_file(source: str) -> bool:
    return not source.startswith(NO_PATHS) and Path(source).expanduser().is_file()


def _by_publisher(source: str) -> str | None:
    if _is_file(source):
        return None
    return next((licence for pattern, licence in KNOWN if re.match(pattern, source)), None)


def _on_the_hub(source: str) -> str | None:
    """The licence in the model card of a repository, which the hub's cache keeps; None if it has none or cannot be read."""
    if _is_file(source) or source.startswith(NO_PATHS):
        return None
    try:
        from huggingface_hub import ModelCard, hf_hub_download

        found = ModelCard.load(hf_hub_download(source, "README.md")).data.to_dict()
    except Exception:  # offline, no card, or one that is not understood: the licence is then known by publisher or not at all
        return None
    named = found.get("license_name") if found.get("license") == "other" else found.get("license")
    return str(named) if named else None


def pictures_origin(licence: str | None) -> Origin:
    return Origin("pictures", licence=licence)


def as_header(origins: Sequence[Origin]) -> list[dict[str, Any]]:
    return [asdict(origin) for origin in origins]


def from_header(header: Mapping[str, Any]) -> tuple[Origin, ...]:
    """What a checkpoint says; of one written by version 0.1.0, only the source of its weights is known."""
    if isinstance(known := header.get("origins"), list):
        return tuple(_read(one) for one in known)
    places = (header.get(name) for name in ("segment", "model"))  # a segmentation network may have weights of its own
    weights = next((place["weights"] for place in places if isinstance(place, dict) and place.get("weights")), None)
    return (Origin("backbone", shortened(str(weights)), "", _by_publisher(str(weights))),) if weights else ()


def _read(entry: Mapping[str, Any]) -> Origin:
    part, source, content = (str(entry[name] or "") for name in ("part", "source", "sha256"))
    return Origin(part, source, content, None if entry["licence"] is None else str(entry["licence"]))


def obstacles(origins: Sequence[Origin]) -> Iterator[str]:
    """What stands in the way of sharing a network, as parts of a sentence. Pictures count only where a licence was stated."""
    for origin in origins:
        if origin.part == "pictures" and origin.licence is None:
            continue
        if (condition := origin.condition()) is not None:
            yield f"{origin.part}{f' {origin.source}' if origin.source else ''}: {condition}"


def origins_of(weights: str | None, weights_licence: str | None, pictures_licence: str | None) -> tuple[Origin, ...]:
    """Those of a classifier: its weights, if any, and its pictures. If weights cannot be found, what loads them says so."""
    found = []
    if weights:
        try:
            found.append(weights_origin("backbone", weights, weights_licence))
        except WeightsError:
            found.append(Origin("backbone", shortened(weights), "", weights_licence))
    return (*found, pictures_origin(pictures_licence))

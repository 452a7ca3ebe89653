"""How much a network doubts each tag, given and not given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mupvss.doctor.discriminant import discriminant
from mupvss.doctor.evidence import Evidence
from mupvss.doctor.neighbours import neighbours_say

STEEP = 4.0
"""Of the logistic curve: 0.12 at a picture's own mark, 0.88 at the other."""


@dataclass(frozen=True)
class Finding:
    """A tag of one picture, and how much speaks against it."""

    picture: int
    """Place in the data set."""
    tag: str
    kind: str
    """missing: not given, but it looks as if it should be; wrong: given, but it does not look so."""
    doubt: float
    """In (0, 1): 0.5 halfway between the typical pictures of both sides, 0.88 where it looks like one of the other side."""
    score: float
    """The network's probability that the tag holds."""


def strengths(evidence: Evidence, tags: np.ndarray) -> np.ndarray:
    """How much speaks for each class in each picture (n, C), unbounded: all heads' scores of all classes, and what the pictures
    most alike are tagged with, weighed for the class. tags (n, C) of 0 and 1."""
    count = len(tags)
    parts = [evidence.heads.reshape(count, -1), neighbours_say(evidence.features, tags)]
    everything = np.concatenate(parts, 1)
    return np.stack([discriminant(everything, tags[:, c] > 0) for c in range(tags.shape[1])], 1)


def tag_doubts(strong: np.ndarray, tags: np.ndarray) -> np.ndarray:
    """Strengths and tags, both (n, C), tags of 0 and 1 -> doubt (n, C) in [0, 1).

    Some classes are told more surely than others. So each class's strengths are measured between two marks: the median of the
    pictures without the tag and of those with it; wrong tags are too few to move a median. A logistic curve brings the place to
    (0, 1) and keeps the order beyond the marks. A class without either kind of picture has no doubt.
    """
    doubts = np.zeros(strong.shape)
    for c in range(strong.shape[1]):
        given = tags[:, c] > 0
        if not given.any() or given.all():
            continue
        low, high = np.median(strong[~given, c]), np.median(strong[given, c])
        place = (strong[:, c] - low) / max(high - low, 1e-6)
        doubts[:, c] = 1 / (1 + np.exp(-STEEP * (np.where(given, 1 - place, place) - 0.5).clip(-9, 9)))
    return doubts


def findings(doubts: np.ndarray, scores: np.ndarray, tags: np.ndarray, classes: tuple[str, ...]) -> list[Finding]:
    """Every picture's most doubtful tag, the most doubtful picture first. doubts, scores, tags: (n, C)."""
    worst = doubts.argmax(1)
    found = [
        Finding(i, classes[c], "wrong" if tags[i, c] > 0 else "missing", float(doubts[i, c]), float(scores[i, c]))
        for i, c in enumerate(worst)
    ]
    return sorted(found, key=lambda finding: (-finding.doubt, finding.picture))


def corrected(doubts: np.ndarray, tags: np.ndarray, least: float) -> np.ndarray:
    """Tags (n, C) of 0 and 1 with those turned round whose doubt is at least `least`; no picture loses its last tag, unless
    another takes its place."""
    found = np.where(doubts >= least, 1 - tags, tags)
    emptied = (found.sum(1) == 0) & (tags.sum(1) > 0)
    found[emptied] = tags[emptied]
    return found

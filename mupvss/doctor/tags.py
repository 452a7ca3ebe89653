"""How doubtful each tag is, given or not: all evidence and the tags of the most similar pictures, weighted for each class."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import NearestNeighbors

from mupvss.doctor.evidence import Evidence

COUNT = 30
"""Number of neighbours."""
SHARP = 20.0
"""A neighbour has the weight exp(SHARP x (its cosine - the nearest one's))."""
PRIOR = 2.0
"""The class's share of all pictures counts as this many neighbours."""


def neighbours_say(features: np.ndarray, tags: np.ndarray) -> np.ndarray:
    """Log-odds that a class is in a picture, from the weighted share of the most similar pictures that are tagged with it.

    Args:
        features: (n, D), one row per picture.
        tags: (n, C) of 0 and 1.

    Returns:
        (n, C), unbounded; zeros for a single picture.
    """
    n, count = len(features), min(COUNT, len(features) - 1)
    if count < 1:
        return np.zeros(tags.shape)
    centred = features - features.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True).clip(1e-8)
    # Without a query, it leaves each picture out of its own neighbours.
    distances, nearest = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(unit).kneighbors()
    cosines = 1 - distances**2 / 2
    weights = np.exp(SHARP * (cosines - cosines.max(1, keepdims=True)))
    shares = (weights[:, :, None] * tags[nearest]).sum(1) / weights.sum(1)[:, None]
    usual = tags.mean(0).clip(0.5 / n, 1 - 0.5 / n)
    likely = (shares * count + usual * PRIOR) / (count + PRIOR)
    return np.log(likely / (1 - likely))


FOLDS = 5


def discriminant(evidence: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Log-odds that a picture has a tag, each by a linear discriminant fitted without that picture.

    Args:
        evidence: (n, K), unbounded.
        given: (n,) bool: whether a picture has the tag.

    Returns:
        (n,), as if half of the pictures had the tag; NaN (unknown) where the other folds lack pictures with or without it.
    """
    fold = np.arange(len(evidence)) % FOLDS
    found = np.full(len(evidence), np.nan)
    for held_out in range(FOLDS):
        learn, judged = fold != held_out, fold == held_out
        yes = int(given[learn].sum())
        no = int(learn.sum()) - yes
        if yes and no and judged.any():
            # Ledoit-Wolf shrinkage draws the covariance towards its diagonal, the more so the fewer pictures there are.
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Only one sample available")  # a tag of a single picture
                fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(evidence[learn], given[learn])
            found[judged] = fitted.decision_function(evidence[judged]) - np.log(yes / no)
    return found


STEEP = 4.0
"""Steepness of the logistic curve: 0.12 at the mark of the picture's own side, 0.88 at the other."""

LIKELY = 0.9
"""From this doubt on, a tag is called likely wrong or missing, and `--fix` changes it: it lies beyond the other side's mark. Of
the findings that are only nearer to that mark than to their own (0.5), most are right tags (docs/lab-notes/11-doctor.md)."""
ENOUGH, MOSTLY = 3, 0.75


@dataclass(frozen=True)
class Finding:
    """A tag of one picture, and how much speaks against it."""

    picture: int
    """Place in the data set."""
    tag: str
    kind: str
    """missing: not given, but the picture looks as if it should be; wrong: given, but the picture does not look like it."""
    doubt: float
    """In [0, 1): 0.5 halfway between the typical pictures of both sides, 0.88 for a typical picture of the other side."""
    score: float
    """The network's probability that the tag holds."""


def strengths(evidence: Evidence, tags: np.ndarray) -> np.ndarray:
    """Evidence for each class in each picture (n, C), unbounded: all heads' scores of all classes and the tags of the most
    similar pictures, weighted for the class. NaN where a class has too few pictures. tags (n, C) of 0 and 1."""
    count = len(tags)
    parts = [evidence.heads.reshape(count, -1), neighbours_say(evidence.features, tags)]
    everything = np.concatenate(parts, 1)
    return np.stack([discriminant(everything, tags[:, c] > 0) for c in range(tags.shape[1])], 1)


def tag_doubts(strong: np.ndarray, tags: np.ndarray) -> np.ndarray:
    """Strengths and tags, both (n, C), tags of 0 and 1 -> doubt (n, C) in [0, 1).

    Some classes are recognised better than others. So each class's strengths are measured between two marks, the medians of the
    pictures without the tag and of those with it; wrong tags are too few to move a median. A logistic curve maps the position
    between the marks to (0, 1) and keeps the order beyond them. The doubt is 0 where a strength is unknown (NaN), where all
    pictures or none have the tag, or where the marks are in the wrong order. It is halved, to below LIKELY, where the middle
    between the marks does not separate a class's pictures.
    """
    doubts = np.zeros(strong.shape)
    for c in range(strong.shape[1]):
        given, known = tags[:, c] > 0, np.isfinite(strong[:, c])
        if not (given & known).any() or not (~given & known).any():
            continue
        low, high = np.median(strong[~given & known, c]), np.median(strong[given & known, c])
        if high <= low:
            continue
        place = (strong[:, c] - low) / (high - low)
        doubt = 1 / (1 + np.exp(-STEEP * (np.where(given, 1 - place, place) - 0.5).clip(-9, 9)))
        sure = _parted(place[given & known] > 0.5) and _parted(place[~given & known] < 0.5)
        doubts[:, c] = np.where(known, doubt if sure else doubt / 2, 0.0)
    return doubts


def _parted(on_their_side: np.ndarray) -> bool:
    """Whether one side has enough pictures to judge, and most of them lie on their own side of the middle."""
    return len(on_their_side) >= ENOUGH and on_their_side.mean() >= MOSTLY


def findings(doubts: np.ndarray, scores: np.ndarray, tags: np.ndarray, classes: tuple[str, ...]) -> list[Finding]:
    """Every picture's most doubtful tag, the most doubtful picture first. doubts, scores, tags: (n, C)."""
    worst = doubts.argmax(1)
    found = [
        Finding(i, classes[c], "wrong" if tags[i, c] > 0 else "missing", float(doubts[i, c]), float(scores[i, c]))
        for i, c in enumerate(worst)
    ]
    return sorted(found, key=lambda finding: (-finding.doubt, finding.picture))


def corrected(doubts: np.ndarray, tags: np.ndarray, least: float) -> np.ndarray:
    """Tags (n, C) of 0 and 1, inverted where the doubt is at least `least`. No picture loses its last tag unless it gains
    another."""
    found = np.where(doubts >= least, 1 - tags, tags)
    emptied = (found.sum(1) == 0) & (tags.sum(1) > 0)
    found[emptied] = tags[emptied]
    return found

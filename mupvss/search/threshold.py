"""The background threshold without any mask, and how sure the masks are.

A map's best value per pixel is high on objects and low elsewhere. Otsu's criterion separates the two groups with the least
variance within them; it needs no ground truth and no constant of the data set. Where objects are few or maps have soft rims, its
threshold is off. The middle of two other rules holds for more kinds of pictures: the median of the pictures' own thresholds,
and the level at which the highest of three groups begins (docs/lab-notes/22-thresholds.md compares them).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mupvss.evaluation.sweep import BINS

NO_BACKGROUND = 0.0
"""The threshold of data whose pictures have no background: every pixel reaches it."""


Rule = Literal["otsu", "middle", "groups"]
LOW, HIGH = 0.05, 0.95
"""Thresholds at which two maps are compared: beyond them a map is all object or all background."""
NEAR = 0.1
"""How far the threshold is moved to see how much the masks depend on it."""
DIFFERS, FILLS, AGREES = 1.5, 0.6, 0.6
"""Limits of the warnings: how many times as large objects may be by one rule as by another; the share of the pictures that they
may fill; the least kappa of search and classifier for a class ("substantial", in the usual words)."""


@dataclass(frozen=True)
class Choice:
    """A threshold chosen without masks."""

    threshold: float
    rule: Rule | Literal["none", "given"]
    """none: there is no background. given: maps that are masks, for which there is nothing to choose."""
    share: float
    """Share of the tagged pictures' pixels that reach it."""
    less: float
    """Share of that area that is lost when the threshold rises by NEAR."""
    more: float
    """Share of that area that is gained when it falls by NEAR."""
    least: float
    """`share` by the rule that finds the least: Otsu's of all pixels, the median of the pictures' own, or three groups."""
    most: float
    """`share` by the rule that finds the most."""

    def warnings(self) -> Iterator[str]:
        """Why the masks may be wrong, as sentences."""
        if self.rule == "none":
            return
        if self.most > DIFFERS * self.least:
            smaller = self.rule != "groups" and self.share > DIFFERS * self.least
            help_ = "if they are too large, try search.threshold = 'groups'" if smaller else "correct some of them in the studio"
            yield (
                f"the maps do not say how large objects are: {100 * self.least:.0f} to {100 * self.most:.0f} % of the tagged "
                f"pictures, depending on how the threshold is chosen; {100 * self.share:.0f} % at {self.threshold:.2f}. Look at "
                f"the masks: {help_}"
            )
        if self.share > FILLS:
            yield (
                f"the masks fill {100 * self.share:.0f} % of the tagged pictures. If every pixel belongs to a tag, set "
                'data.background = "none"'
            )


def choose(counts: np.ndarray, rule: Rule) -> Choice:
    """The threshold of a data set.

    Args:
        counts: (n, BINS + 1), for each tagged picture the number of its pixels per level of their best value.
        rule: otsu: of all pixels. groups: `three_groups` of all pixels. middle: between that and the median of the pictures' own.

    Returns:
        A threshold in [0, 1]; 0.5 without a picture.
    """
    pooled = counts.sum(0, dtype=np.int64)
    if not len(counts):
        return described(pooled, [0.5], 0.5, rule)
    rules = otsu(pooled), float(np.median([otsu(own) for own in counts])), three_groups(pooled)
    middle = round((rules[1] + rules[2]) / 2 * BINS) / BINS
    return described(pooled, rules, {"otsu": rules[0], "groups": rules[2], "middle": middle}[rule], rule)


def described(counts: np.ndarray, rules: Sequence[float], threshold: float, rule: Rule | Literal["none", "given"]) -> Choice:
    """A threshold with what follows from it. counts: (BINS + 1,), of all pictures. rules: thresholds by several rules."""
    reach = counts[::-1].cumsum()[::-1] / max(1, counts.sum())

    def share(level: float) -> float:
        return float(reach[min(BINS, max(0, round(level * BINS)))])

    here, shares = share(threshold), [share(level) for level in rules]
    less, more = here - share(threshold + NEAR), share(threshold - NEAR) - here
    return Choice(threshold, rule, here, less / max(here, 1e-9), more / max(here, 1e-9), min(shares), max(shares))


def best_kappa(counts: np.ndarray) -> float:
    """How far two maps agree on what is object, at the threshold that suits them best: Cohen's kappa, 1 for the same masks and 0
    for what chance would bring.

    Args:
        counts: (3, BINS + 1), number of pixels per level of the one map, of the other, and of the smaller of the two values.

    Returns:
        At most 1; 0 if there is no value, or none that varies.
    """
    pixels = counts[0].sum()
    one, other, common = (part[::-1].cumsum()[::-1] / max(1, pixels) for part in counts)
    expected = one * other + (1 - one) * (1 - other)
    observed = 1 - one - other + 2 * common
    level = np.arange(BINS + 1) / BINS
    usable = (expected < 1 - 1e-12) & (level >= LOW - 1e-9) & (level <= HIGH + 1e-9) & bool(pixels)
    return float(((observed - expected)[usable] / (1 - expected[usable])).max()) if usable.any() else 0.0


def disagreements(kappas: Mapping[str, float]) -> Iterator[str]:
    """What to do about classes whose search and classifier find different things. kappas: agreement by class."""
    apart = sorted((kappa, name) for name, kappa in kappas.items() if kappa < AGREES)
    if apart:
        named = ", ".join(f"{name} ({kappa:.2f})" for kappa, name in apart[:8]) + (", ..." if len(apart) > 8 else "")
        yield (
            f"search and classifier find different things for {named}; {AGREES} or more is usual. Look at their masks; more "
            'image steps (train.image_steps) or the classifier\'s maps alone (search.maps = "attended_cam_refined") may help'
        )


def otsu(counts: np.ndarray) -> float:
    """The threshold with the greatest variance between the two groups (Otsu 1979).

    Args:
        counts: (BINS + 1,), number of values at each level k / BINS.

    Returns:
        A threshold in [0, 1]; 0.5 if there is no value, or only one level.
    """
    counts = counts.astype(np.float64)
    value = np.arange(BINS + 1) / BINS
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    low = np.cumsum(counts * value)[:-1]
    high = (counts * value).sum() - low
    usable = (below > 0) & (above > 0)
    if not usable.any():
        return 0.5
    with np.errstate(invalid="ignore", divide="ignore"):
        between = np.where(usable, below * above * (high / above - low / below) ** 2, -1.0)
    return float((np.argmax(between) + 1) / BINS)


ROUNDS, SETTLED = 1000, 1e-5
"""Expectation-maximization ends after so many rounds, or when no level's share in a group changes by more than this."""


def three_groups(counts: np.ndarray) -> float:
    """The level from which a value rather belongs to the highest of three normal distributions, as for background, soft rims and
    objects. They start from the three groups of least variance within and are fitted by expectation-maximization.

    Args:
        counts: (BINS + 1,), number of values at each level k / BINS.

    Returns:
        A threshold in [0, 1]; Otsu's if there are fewer than three different values.
    """
    value, weight = np.arange(BINS + 1) / BINS, counts / max(1, counts.sum())
    if (counts > 0).sum() < 3:
        return otsu(counts)
    own = _three_parts(value, weight)
    for _ in range(ROUNDS):
        inside = own * weight
        share = inside.sum(1, keepdims=True).clip(1e-12)
        mean = (inside * value).sum(1, keepdims=True) / share
        variance = (inside * (value - mean) ** 2).sum(1, keepdims=True) / share + 1 / (12 * BINS**2)  # that of a level's width
        score = np.log(share) - np.log(variance) / 2 - (value - mean) ** 2 / (2 * variance)
        likely = np.exp(score - score.max(0))
        likely /= likely.sum(0)
        change, own = np.abs(likely - own).max(), likely
        if change < SETTLED:
            break
    lowest, highest = mean[:, 0].argmin(), mean[:, 0].argmax()
    reached = (own[highest] > 0.5) & (value > mean[lowest, 0])
    return float(value[reached.argmax()]) if reached.any() else otsu(counts)


def _three_parts(value: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(3, BINS + 1) of 0 and 1: the three ranges of levels with the least variance within them, each with some weight."""
    low, high = np.triu_indices(len(value) - 1, 1)
    below, sums = weight.cumsum(), (weight * value).cumsum()
    shares = np.stack([below[low], below[high] - below[low], below[-1] - below[high]])
    parts = np.stack([sums[low], sums[high] - sums[low], sums[-1] - sums[high]])
    filled = (shares > 0).all(0)
    between = np.where(filled, parts**2 / np.where(shares > 0, shares, 1), 0).sum(0)
    best = np.where(filled, between, -1).argmax()
    place = np.arange(len(value))
    return np.stack([place <= low[best], (place > low[best]) & (place <= high[best]), place > high[best]]).astype(float)

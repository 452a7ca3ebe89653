"""Where the data sets come from, and the hashes of their archives."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    url: str
    sha256: str

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


_VOC = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012"
_SBD = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours"
_COCO = "http://images.cocodataset.org"


def _coco(year: int, annotations: str, train: str, val: str) -> tuple[Archive, ...]:
    return (
        Archive(f"{_COCO}/annotations/annotations_trainval{year}.zip", annotations),
        Archive(f"{_COCO}/zips/train{year}.zip", train),
        Archive(f"{_COCO}/zips/val{year}.zip", val),
    )


ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "voc": (Archive(f"{_VOC}/VOCtrainval_11-May-2012.tar", "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb"),),
    "sbd": (Archive(f"{_SBD}/benchmark.tgz", "6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53"),),
    "coco": _coco(
        2014,
        annotations="031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
        train="ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
        val="fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
    ),
    "coco2017": _coco(
        2017,
        annotations="113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
        train="69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
        val="4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
    ),
}
FOLDERS = {"voc": ".", "sbd": "SBD", "coco": "coco", "coco2017": "coco"}
"""Where each is unpacked, below the user's folder: what the configs expect."""

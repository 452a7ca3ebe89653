"""The whole job: its stages in order, each through its folder."""

from __future__ import annotations

from mupvss.runtime.device import prepare
from mupvss.runtime.log import console
from mupvss.stages.affinity import run_affinity
from mupvss.stages.cam import run_cam, run_cam_train
from mupvss.stages.evaluate import run_evaluate
from mupvss.stages.masks import run_masks
from mupvss.stages.report import run_report
from mupvss.stages.run_folder import Metrics, Run, gather_metrics
from mupvss.stages.seeds import run_seeds
from mupvss.stages.segment import run_segment
from mupvss.stages.train import run_train
from mupvss.stages.val import run_val

STAGES = {
    "train": run_train,
    "seeds": run_seeds,
    "evaluate": run_evaluate,
    "affinity": run_affinity,
    "masks": run_masks,
    "segment": run_segment,
    "val": run_val,
    "cam_train": run_cam_train,
    "cam": run_cam,
    "report": run_report,
}
BASELINE = ("cam_train", "cam")


def run_all(run: Run) -> Metrics:
    """Every stage in turn, the plain CAM's only with `baseline`; returns the flat metrics."""
    for name in STAGES:
        if name not in BASELINE or (run.config.baseline and run.config.model.method != "cam"):
            run_one(run, name)
    metrics = gather_metrics(run)
    print_headline(run, metrics)
    return metrics


def run_one(run: Run, name: str) -> Metrics:
    prepare(run.config.seed, run.config.threads)
    metrics = STAGES[name](run)
    gather_metrics(run)
    return metrics


HEADLINE = {
    "seeds/miou": "seeds, threshold chosen without masks",
    "seeds/miou_oracle": "seeds (oracle threshold)",
    "seeds/prototype_oracle": "prototype search alone (oracle)",
    "seeds/without_prototype_oracle": "seeds without the prototypes (oracle)",
    "masks/miou": "pseudo masks",
    "val/miou_single": "segmentation network on val, one scale",
    "val/miou": "segmentation network on val",
    "cam/oracle": "plain CAM (oracle)",
    "cam/attention_oracle": "plain CAM + attention (oracle)",
}


def print_headline(run: Run, metrics: Metrics) -> None:
    for key, title in HEADLINE.items():
        if isinstance(metrics.get(key), float):
            console.print(f"{title:42s} {metrics[key]:5.1f} mIoU", highlight=False)
    console.print(f"report: {run.folder('report') / 'index.html'}", highlight=False, soft_wrap=True)

"""AdamW with parameter groups, and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from mupvss.config.schema import ModelConfig, TrainConfig
from mupvss.model.build import is_decayed, is_new


def build_optimizer(network: nn.Module, model: ModelConfig, train: TrainConfig) -> torch.optim.AdamW:
    """For a classifier."""
    return grouped_optimizer(network, train, lambda name: is_new(name, model))


def grouped_optimizer(network: nn.Module, train: TrainConfig, new: Callable[[str], bool]) -> torch.optim.AdamW:
    """Four groups: pretrained or new, decayed or not. Each keeps its full learning rate under 'peak'; frozen ones are in none."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((new(name), is_decayed(name, parameter)), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "peak": train.lr * (train.new_lr_scale if is_recent else 1.0),
                "weight_decay": train.weight_decay if decayed else 0.0,
            }
            for (is_recent, decayed), parameters in groups.items()
        ],
        lr=train.lr,
    )


def learning_rate_factor(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then a cosine to zero; `step` counts from 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor

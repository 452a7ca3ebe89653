"""Where the printed formulas break: finite values, and finite gradients that vanish only where a loss is at its floor."""

from __future__ import annotations

import pytest
import torch

from mupvss.losses import ccp, cip, classification, p2p
from mupvss.losses.p2p_dense_loss import confident_targets, p2p_dense

B, C, N, D = 3, 4, 6, 8


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def gradient(loss, *inputs):
    """Largest gradient entry; checks that value and gradients are finite."""
    value = loss(*inputs)
    assert value.shape == ()
    assert torch.isfinite(value)
    value.backward()
    assert all(torch.isfinite(x.grad).all() for x in inputs)
    return max(x.grad.abs().max().item() for x in inputs)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_ccp_parts_equal_prototypes(reduction):
    p = random(B, 1, D).repeat(1, C, 1).requires_grad_()
    assert gradient(lambda x: ccp(x, reduction), p) > 0
    with torch.no_grad():
        before, after = ccp(p, reduction), ccp(p - 1e-4 * p.grad / p.grad.abs().max(), reduction)
    assert after < before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("form", ["shifted", "literal"])
def test_every_float_type(dtype, form):
    p, f = random(B, C, D).to(dtype).requires_grad_(), random(B, N, D).to(dtype).requires_grad_()
    tags = torch.tensor([[1, 0, 0, 1]] * B, dtype=dtype)
    assert gradient(ccp, p) > 0
    assert gradient(lambda x: cip(x, form=form), p) > 0
    assert gradient(lambda a, b: p2p(a, b, tags), f, p) > 0
    scores = random(B, C).to(dtype).requires_grad_()
    assert gradient(lambda x: classification(x, tags), scores) > 0


@pytest.mark.parametrize("form", ["shifted", "literal"])
def test_cip_pulls_on_negative_cosines(form):
    base = random(1, C, D)
    p = torch.cat((base, -base + 0.3 * random(1, C, D))).requires_grad_()
    assert gradient(lambda x: cip(x, form=form), p) > 0


def test_cip_with_equal_prototypes_is_at_its_floor():
    p = random(1, C, D).repeat(B, 1, 1).requires_grad_()
    assert gradient(cip, p) < 1e-5
    assert cip(p).item() == pytest.approx(0, abs=1e-6)


def test_one_picture_in_the_batch():
    p, f = random(1, C, D).requires_grad_(), random(1, N, D).requires_grad_()
    assert gradient(cip, p) == 0
    assert gradient(lambda a, b: p2p(a, b, torch.ones(1, C)), f, p) > 0
    assert gradient(ccp, p) > 0


def test_one_class():
    p = random(B, 1, D).requires_grad_()
    assert gradient(ccp, p) == 0


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_no_tag_and_every_tag(value):
    p, f = random(B, C, D).requires_grad_(), random(B, N, D).requires_grad_()
    tags = torch.full((B, C), value)
    assert gradient(lambda a, b: p2p(a, b, tags), f, p) > 0
    assert gradient(lambda x: classification(x, tags), random(B, C).requires_grad_()) > 0
    maps = random(B, C, N).abs()
    dense = gradient(
        lambda a, b: p2p_dense(a, b, tags, maps, 5.0, -1.0), f.detach().requires_grad_(), p.detach().requires_grad_()
    )
    assert (dense > 0) == bool(value)


@pytest.mark.parametrize("how", ["sum", "mean", "gwrp"])
def test_p2p_teaches_a_class_whose_patches_are_all_under_the_threshold(how):
    p, f = random(B, C, D).requires_grad_(), random(B, N, D).requires_grad_()
    assert gradient(lambda a, b: p2p(a, b, torch.ones(B, C), threshold=0.9999, how=how), f, p) > 0


def test_zero_vectors():
    p, f = torch.zeros(B, C, D, requires_grad=True), torch.zeros(B, N, D, requires_grad=True)
    for loss in (ccp, cip):
        assert torch.isfinite(loss(p))
    gradient(lambda a, b: p2p(a, b, torch.ones(B, C)), f, p)


def test_confident_targets_by_hand():
    maps = torch.tensor([[[10.0, 7.0, 5.0, 0.0], [0.0, 8.0, 5.0, 2.0], [9.0, 9.0, 0.0, 0.0]]])
    tags = torch.tensor([[1.0, 1.0, 0.0]])
    target, counts = confident_targets(maps, tags)
    # class 0 stretched: 1, .7, .5, 0; class 1: 0, 1, .625, .25. Patch 1 belongs to class 1, which claims it more strongly.
    assert target[0].tolist() == [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert counts[0].tolist() == [[True, True, False, True], [True, True, True, True], [False] * 4]

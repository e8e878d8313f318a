import math

import pytest
import torch

from optctl.learning.ops import value_learning as ops


def test_discount_is_zero_only_where_the_problem_ended():
    assert ops.discount(0.9, torch.tensor([False, True])).tolist() == pytest.approx([0.9, 0.0])
    assert ops.discount(0.9, torch.tensor([0.0, 1.0])).tolist() == pytest.approx([0.9, 0.0])


def test_soft_td_target_by_hand():
    # least members 2 and 4, entropy bonus 0.5 * 1: 1 + 0.9 * (2 + 0.5) = 3.25; the second ended: 1
    target = ops.soft_td_target(
        torch.ones(2),
        torch.tensor([0.9, 0]),
        torch.tensor([[2.0, 5], [3, 4]]),
        torch.tensor([-1.0, -1]),
        torch.tensor([0.5]),
    )
    assert target.tolist() == pytest.approx([3.25, 1.0])


def test_td_loss_and_its_gradient_by_hand():
    # members: (1 + 4) / 2 / 2 = 1.25 and (9 + 0) / 2 / 2 = 2.25
    q, target = torch.tensor([[1.0, 2], [3, 0]]), torch.zeros(2)
    assert ops.td_loss(q, target).item() == pytest.approx(3.5)
    assert ops.td_loss_gradient(q, target).tolist() == [[0.5, 1], [1.5, 0]]
    assert q.tolist() == [[1, 2], [3, 0]]


def test_soft_actor_loss_and_its_gradient_by_hand():
    # ((0.5 * -1 - 1) + (0.5 * 1 - 3)) / 2 = -2
    q = torch.tensor([[1.0, 4], [2, 3]])
    assert ops.soft_actor_loss(q, torch.tensor([-1.0, 1]), torch.tensor(0.5)).item() == pytest.approx(-2)
    assert ops.soft_actor_loss_gradient(q).tolist() == [[-0.5, 0], [0, -0.5]]


def test_temperature_rises_while_entropy_is_below_its_target():
    # entropy -2 < target -1: -2 * (2 - 1) = -2, and descent raises the temperature
    assert ops.temperature_gradient(torch.tensor(math.log(2.0)), torch.tensor([1.0, 3]), -1).item() == pytest.approx(-2)


def test_polyak_by_hand():
    target = torch.tensor([0.0, 2.0])
    ops.polyak(target, torch.tensor([1.0, 1.0]), 0.25)
    assert target.tolist() == [0.25, 1.75]

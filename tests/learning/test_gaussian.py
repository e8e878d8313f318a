import math

import pytest
import torch

from optctl.learning.ops.gaussian import tanh_gaussian_gradient, tanh_gaussian_log_prob, tanh_gaussian_sample


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_sample_and_log_prob_by_hand():
    # u = 0 + 1 * 0: a = 0, log pi = -log(2 pi) / 2.   u = 0.5 + 0.5 * 1 = 1: a = tanh 1,
    # log pi = -1/2 - log 0.5 - 0.9189385332 - log(1 - 0.5800256584) = 0.1417703083
    action, log_prob = tanh_gaussian_sample(column(0, 0.5), column(0, math.log(0.5)), column(0, 1))
    torch.testing.assert_close(action[:, 0], torch.tensor([0, 0.7615941559557649], dtype=torch.float64))
    torch.testing.assert_close(
        log_prob, torch.tensor([-0.9189385332046727, 0.1417703083], dtype=torch.float64), atol=1e-9, rtol=0
    )


def test_components_add_up_along_the_given_axis():
    zero = torch.zeros(3, 5)
    assert tanh_gaussian_sample(zero, zero, zero)[1].tolist() == pytest.approx([-3 * 0.0 - 5 * 0.9189385] * 3)
    assert tanh_gaussian_sample(zero, zero, zero, dim=0)[1].tolist() == pytest.approx([-3 * 0.9189385] * 5)


def test_log_prob_stays_exact_where_tanh_is_saturated():
    # -log(1 - tanh(20)^2) = 2 (20 - log 2) + O(e^-40) = 38.6137056, although tanh(20) == 1 in float32
    _, log_prob = tanh_gaussian_sample(torch.tensor([[20.0]]), torch.zeros(1, 1), torch.zeros(1, 1))
    assert log_prob.item() == pytest.approx(38.6137056 - 0.9189385, rel=1e-6)


def test_gradient_by_hand():
    # u = 1, a = tanh 1 = 0.76159416, 1 - a^2 = 0.41997434, du/dlog_std = std * noise = 0.5
    one, zero = column(1), column(0)
    action = column(0.7615941559557649)
    grad_mean, grad_log_std = tanh_gaussian_gradient(action, column(math.log(0.5)), one, one, zero)
    assert (grad_mean.item(), grad_log_std.item()) == pytest.approx((0.4199743416, 0.2099871708))
    grad_mean, grad_log_std = tanh_gaussian_gradient(action, column(math.log(0.5)), one, zero, one)
    assert (grad_mean.item(), grad_log_std.item()) == pytest.approx((1.5231883119, -0.2384058440))


def test_log_prob_of_an_action_is_that_of_its_sample():
    assert tanh_gaussian_log_prob(
        column(0.5), column(math.log(0.5)), column(0.7615941559557649)
    ).item() == pytest.approx(0.1417703083)


def test_density_integrates_to_one():
    action = torch.linspace(-1, 1, 200_001, dtype=torch.float64)[1:-1, None]
    density = tanh_gaussian_log_prob(torch.full_like(action, 0.3), torch.full_like(action, -0.7), action).exp()
    assert (density.sum() * 1e-5).item() == pytest.approx(1, abs=1e-6)


def test_log_prob_of_an_action_on_its_bound_is_finite():
    assert tanh_gaussian_log_prob(torch.zeros(2, 1), torch.zeros(2, 1), torch.tensor([[-1.0], [1.0]])).isfinite().all()

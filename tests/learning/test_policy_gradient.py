import torch
from torch.distributions import Independent, Normal, kl_divergence

from optctl.learning.ops.policy_gradient import clipped_surrogate, gaussian_divergence, gaussian_log_prob


def gaussians():
    g = torch.Generator().manual_seed(0)
    return [torch.randn(2, 5, generator=g, dtype=torch.float64) for _ in range(5)]


def test_log_probability_is_that_of_torch():
    mean, log_std, action, *_ = gaussians()
    expected = Independent(Normal(mean.T, log_std.T.exp()), 1).log_prob(action.T)
    torch.testing.assert_close(gaussian_log_prob(mean, log_std, action), expected)


def test_divergence_is_that_of_torch():
    mean, log_std, _, new_mean, new_log_std = gaussians()
    old, new = (Independent(Normal(m.T, s.T.exp()), 1) for m, s in ((mean, log_std), (new_mean, new_log_std)))
    torch.testing.assert_close(gaussian_divergence(mean, log_std, new_mean, new_log_std), kl_divergence(old, new))


def test_the_surrogate_by_hand():
    # ratios 2 and 0.5; clip 0.2: min(2·1, 1.2·1) = 1.2; min(0.5·1, 0.8·1) = 0.5; min(2·−1, 1.2·−1) = −2; min(−0.5, −0.8) = −0.8
    ratio = torch.tensor([2.0, 0.5, 2.0, 0.5])
    advantage = torch.tensor([1.0, 1.0, -1.0, -1.0])
    loss = clipped_surrogate(ratio.log(), torch.zeros(4), advantage, 0.2)
    torch.testing.assert_close(loss, -torch.tensor((1.2 + 0.5 - 2.0 - 0.8) / 4))


def test_what_is_clipped_has_no_gradient():
    log_prob = torch.tensor([1.0, -1.0, 0.0], requires_grad=True)
    clipped_surrogate(log_prob, torch.zeros(3), torch.tensor([1.0, -1.0, 3.0]), 0.2).backward()
    torch.testing.assert_close(log_prob.grad, torch.tensor([0.0, 0.0, -1.0]))

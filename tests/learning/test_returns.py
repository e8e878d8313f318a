import pytest
import torch

from optctl.learning.ops.returns import generalized_advantage

tensor = torch.tensor


def test_advantages_by_hand():
    # γ 0.5, λ 0.5: δ = (1 + 1 − 1, 2 + 2 − 2, 3 + 3 − 4) = (1, 2, 2); A2 = 2, A1 = 2 + 0.25 · 2 = 2.5, A0 = 1 + 0.25 · 2.5
    found = generalized_advantage(
        tensor([1.0, 2.0, 3.0]),
        tensor([1.0, 2.0, 4.0]),
        tensor([2.0, 4.0, 6.0]),
        torch.zeros(3),
        torch.zeros(3),
        0.5,
        0.5,
    )
    torch.testing.assert_close(found, tensor([1.625, 2.5, 2.0]))


def test_a_truncation_bootstraps_and_cuts_and_an_end_only_cuts():
    reward, value, following = tensor([1.0, 1.0]), torch.zeros(2), tensor([10.0, 10.0])
    cut = lambda terminated: generalized_advantage(
        reward, value, following, tensor([terminated, 0.0]), tensor([1.0, 0.0]), 1.0, 1.0
    )
    torch.testing.assert_close(cut(0.0), tensor([11.0, 11.0]))  # the value beyond the limit counts
    torch.testing.assert_close(cut(1.0), tensor([1.0, 11.0]))  # beyond the end there is none


def test_with_lambda_one_it_is_the_discounted_return_minus_the_value():
    g = torch.Generator().manual_seed(0)
    reward, value = torch.rand(6, 3, generator=g), torch.rand(7, 3, generator=g)
    none = torch.zeros(6, 3)
    found = generalized_advantage(reward, value[:-1], value[1:], none, none, 0.9, 1.0)
    powers = 0.9 ** torch.arange(6.0)
    expected = (powers[:, None] * reward).sum(0) + 0.9**6 * value[-1] - value[0]
    torch.testing.assert_close(found[0], expected)


@pytest.mark.parametrize("lam", [0.0, 0.7])
def test_an_exact_value_has_no_advantage(lam):
    value = tensor([3.0, 2.0, 1.0])  # one each for three steps, then the end
    found = generalized_advantage(
        torch.ones(3), value, tensor([2.0, 1.0, 9.0]), tensor([0.0, 0.0, 1.0]), tensor([0.0, 0.0, 1.0]), 1.0, lam
    )
    torch.testing.assert_close(found, torch.zeros(3))

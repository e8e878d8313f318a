import pytest
import torch

from optctl.learning.optimizer import Adam


def test_first_step_by_hand():
    # m_hat = g, v_hat = g^2: the first step is lr * sign(g)
    parameters = torch.zeros(2)
    Adam(parameters, lr=0.1).step(torch.tensor([3.0, -0.5]))
    assert parameters.tolist() == pytest.approx([-0.1, 0.1], rel=1e-5)


def test_equals_torch_adam_while_the_learning_rate_changes():
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(10, generator=generator)
    theirs = torch.nn.Parameter(ours.clone())
    adam, reference = Adam(ours, lr=1e-2), torch.optim.Adam([theirs], lr=1e-2)
    for step in range(20):
        gradient = torch.randn(10, generator=generator)
        theirs.grad = gradient.clone()
        if step == 10:
            adam.lr.fill_(1e-3)
            reference.param_groups[0]["lr"] = 1e-3
        adam.step(gradient)
        reference.step()
    torch.testing.assert_close(ours, theirs.detach())

import pytest
import torch

from optctl.learning.normalizer import Normalizer


def test_moments_by_hand():
    # 1, 2 | 3, 6: mean 3, squared deviations 4 + 1 + 0 + 9 = 14, std sqrt(3.5)
    normalizer = Normalizer(1)
    normalizer.update(torch.tensor([[1.0], [2.0]]))
    normalizer.update(torch.tensor([[3.0], [6.0]]))
    assert normalizer.mean.item() == pytest.approx(3)
    assert normalizer.squares.item() == pytest.approx(14)
    assert normalizer(torch.tensor([[3.0], [3.0 + 3.5**0.5]])).flatten().tolist() == pytest.approx([0, 1], abs=1e-6)


def test_moments_survive_a_large_constant():
    x = 1e6 + torch.randn(1000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    normalizer = Normalizer(1)
    for chunk in x.split(10):
        normalizer.update(chunk)
    assert (normalizer.squares / 1000).sqrt().item() == pytest.approx(x.std(correction=0).item(), rel=1e-6)


def test_a_constant_column_gives_zero_and_its_neighbour_is_untouched():
    normalizer = Normalizer(2)
    x = torch.stack((torch.full((50,), 0.1), torch.linspace(-1, 1, 50)), -1)
    for _ in range(20):
        normalizer.update(x)
    y = normalizer(x)
    assert y[:, 0].abs().max() < 1e-6
    assert y[:, 1].std(correction=0).item() == pytest.approx(1, rel=1e-5)
    assert normalizer(x + torch.tensor([1e-3, 0.0]))[:, 0].abs().max() < 2e-3  # a constant that moves is not amplified


def test_outliers_are_clipped():
    normalizer = Normalizer(1, limit=5)
    normalizer.update(torch.tensor([[-1.0], [1.0]]))
    assert normalizer(torch.tensor([[100.0], [-100.0]])).flatten().tolist() == [5, -5]


def test_identity_before_the_first_batch_and_when_disabled():
    x = torch.tensor([[3.0, -4.0]])
    assert torch.equal(Normalizer(2)(x), x)
    disabled = Normalizer(2, enabled=False)
    disabled.update(torch.randn(10, 2))
    assert torch.equal(disabled(x), x)


def test_restored_moments_normalise_to_the_same_bits():
    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    original, restored = Normalizer(3), Normalizer(3)
    original.update(x)
    restored.load_state_dict({name: value.clone() for name, value in original.state_dict().items()})
    assert torch.equal(original(x), restored(x))

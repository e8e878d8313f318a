import pytest
import torch

from optctl.learning.data.replay import Replay, Transition


def numbered(first, count):
    """Transition k has obs (k, k + 0.1), action k + 0.2, reward k + 0.3, next_obs (k + 0.4, k + 0.5); odd ones terminated."""
    k = torch.arange(first, first + count, dtype=torch.float64)
    columns = lambda *offsets: torch.stack([k + offset for offset in offsets], -1)
    return Transition(columns(0, 0.1), columns(0.2), k + 0.3, columns(0.4, 0.5), k % 2 == 1)


def ring(capacity=10):
    return Replay(capacity, 2, 1, dtype=torch.float64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_samples_keep_the_fields_of_a_transition_together():
    replay = ring()
    replay.add(numbered(0, 7))
    obs, action, reward, next_obs, terminated = replay.sample(50, 3, generator())
    assert obs.shape == (3, 50, 2) and action.shape == (3, 50, 1) and reward.shape == terminated.shape == (3, 50)
    k = obs[..., 0]
    assert set(k.unique().tolist()) == {0, 1, 2, 3, 4, 5, 6}
    for value, offset in (
        (obs[..., 1], 0.1),
        (action[..., 0], 0.2),
        (reward, 0.3),
        (next_obs[..., 0], 0.4),
        (next_obs[..., 1], 0.5),
    ):
        torch.testing.assert_close(value, k + offset)
    assert torch.equal(terminated, k % 2)


def test_the_oldest_are_overwritten_across_the_seam():
    replay = ring(10)
    for first in (0, 4, 8):
        replay.add(numbered(first, 4))
    assert len(replay) == 10
    seen = replay.sample(500, 1, generator()).obs[..., 0].unique().tolist()
    assert seen == list(range(2, 12))


def test_sampling_is_uniform():
    replay = ring()
    replay.add(numbered(0, 10))
    counts = replay.sample(100_000, 1, generator()).obs[..., 0].flatten().long().bincount()
    assert counts.sum() == 100_000 and ((counts - 10_000).abs() < 500).all()  # 5 standard deviations of 95


def test_adding_copies():
    replay = ring()
    transition = numbered(3, 1)
    replay.add(transition)
    transition.obs.zero_()
    assert (replay.sample(5, 1, generator()).obs[..., 0] == 3).all()


@pytest.mark.parametrize("count", [6, 25])
def test_a_restored_ring_continues_as_the_original(count):
    original, restored = ring(), ring()
    for first in range(count):
        original.add(numbered(first, 1))
    restored.load_state_dict({name: value.clone() for name, value in original.state_dict().items()})
    for replay in (original, restored):
        replay.add(numbered(100, 7))
    for a, b in zip(original.sample(64, 2, generator()), restored.sample(64, 2, generator()), strict=True):
        assert torch.equal(a, b)


def test_too_many_at_once_is_refused():
    with pytest.raises(ValueError, match="at most `capacity` = 10 transitions, but holds 11"):
        ring().add(numbered(0, 11))


def test_rows_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="at most 10 rows of 7 columns, but holds"):
        ring().load_state_dict(ring(20).state_dict() | {"rows": torch.zeros(20, 7)})

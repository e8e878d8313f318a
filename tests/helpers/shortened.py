"""Documents and notebooks with fewer starts, restarts and seconds, for tests of whether their code runs."""

from optctl.hybrid.warm_start import WarmStartConfig

SHORT = WarmStartConfig(num_starts=4, clone_updates=50, critic_updates=20, rollout_steps=5, review_starts=8)


def shortened(source, changes):
    """The source with each key of `changes` replaced by its value."""
    for many, few in changes.items():
        assert many in source, f"the source no longer says {many!r}"
        source = source.replace(many, few)
    return source

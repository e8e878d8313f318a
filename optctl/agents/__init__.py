"""Agents by name: `AGENTS[name]` is (class, configuration class)."""

from optctl.agents.off_policy.sac import SAC, SACConfig

AGENTS = {
    "sac": (SAC, SACConfig),
}

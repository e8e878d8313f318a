"""Agents by name: `AGENTS[name]` is (class, configuration class)."""

from optctl.rl.agents.sac import SAC, SACConfig

AGENTS = {
    "sac": (SAC, SACConfig),
}

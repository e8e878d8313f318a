"""Agents that learn from a replay of everything they have met."""

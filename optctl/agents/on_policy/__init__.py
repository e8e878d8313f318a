"""Agents that learn from what the present policy has just lived through."""

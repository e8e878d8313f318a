"""Optimal trajectories into learning."""

"""Loops that drive an agent: one file for each way of collecting data."""

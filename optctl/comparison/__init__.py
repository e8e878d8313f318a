"""Policies against the optimum: `optctl.compare`, the gap of each, its statistics, its report and pictures."""

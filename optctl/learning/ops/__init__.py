"""Formulas on tensors, one module per subject; none of them knows a network, a buffer or an agent."""

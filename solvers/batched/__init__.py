"""Solvers for thousands of problems at once, on generated Warp kernels (their text: `kernels/`).

`ddp` and `tiles` sweep small and larger systems; `choice` says who sweeps. `unconstrained` and `constrained` solve many starts, guesses
included. `shooting` and `flow` polish extremals, `riccati` serves linear plants, `bilinear` and `grape` pulses, `hjb` grids.

What loads warp or torch is imported on demand; `choice` and `unconstrained` load neither by themselves.
"""

"""Solvers for thousands of problems at once on generated Warp kernels, one file a method: `ddp` and `tiles` (small and larger systems),
`constrained`, `mpc`, `safety`, `shooting`, `riccati`, `grape`, `hjb`.

Loaded on demand: nothing else in `optctl.solvers` needs warp or torch.
"""

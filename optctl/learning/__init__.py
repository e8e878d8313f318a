"""What agents are built from: operators, networks, normalisers, replay and rollouts.

Everything here knows torch and the `VectorEnv` contract of docs/design.md, and of the package only its errors and files: an agent
trains on any vectorised environment with the same signature. Observations and actions are batch first; actions lie in [-1, 1].
"""

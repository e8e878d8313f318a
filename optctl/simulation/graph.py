"""Steps under any torch policy, replayed without Python: on CUDA the policy, the environment and the bookkeeping are one graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from optctl.errors import require
from optctl.simulation.vector_env import VectorEnv


class CapturedSteps:
    """`steps` times `env.step(policy(env.obs))`; a call runs them all and returns `rewards`.

    On CUDA the K steps are captured once as a CUDA graph and replayed by one launch: `policy` must consist of operations on the GPU
    without synchronisation; it sees the weights that it has at each replay, as long as they are changed in place. On a CPU the
    same steps run one by one. `rewards` (num_envs,): sums over the K steps, overwritten by the next call. The environment goes on
    from where it stands; resets between calls are seen.
    """

    def __init__(self, env: VectorEnv, policy: Callable[[Tensor], Tensor], steps: int) -> None:
        whole = isinstance(steps, int) and not isinstance(steps, bool)
        require(whole and steps > 0, "steps", "be a positive integer", f"is {steps!r}")
        self.env, self.policy, self.steps = env, policy, steps
        self.rewards = torch.zeros(env.num_envs, dtype=env.dtype, device=env.device)
        self._graph = self._capture() if env.device.type == "cuda" else None

    def __call__(self) -> Tensor:
        if self._graph is None:
            self._run()
        else:
            self._graph.replay()
        return self.rewards

    @torch.no_grad()
    def _run(self) -> None:
        self.rewards.zero_()
        for _ in range(self.steps):
            self.rewards += self.env.step(self.policy(self.env.obs))[1]

    def _capture(self) -> torch.cuda.CUDAGraph:
        """Warm up on a stream of its own, as torch asks for, undo what that did to the environment, and capture."""
        if not self.env.seeded:
            self.env.reset()
        begun = self.env.state_dict()
        stream = torch.cuda.Stream(self.env.device)
        stream.wait_stream(torch.cuda.current_stream(self.env.device))
        with torch.cuda.stream(stream):
            self._run()
        torch.cuda.current_stream(self.env.device).wait_stream(stream)
        self.env.load_state_dict(begun)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._run()
        return graph

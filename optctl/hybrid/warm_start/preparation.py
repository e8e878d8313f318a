"""Warm start: demonstrations → cloned actor → critic fitted to it before any improvement → fine-tuning that keeps its teacher.

1. **Clone.** The actor regresses the demonstrated actions, with little exploration noise.
2. **Fit the critic** to the policy as cloned, and only the critic: temporal differences on demonstrations and on rollouts of the
   clone, plus regression on the demonstrated cost-to-go and on its gradient (the costate): a critic that is wrong at the first actor
   update is what makes naive warm starts collapse (Nakamoto et al. 2023, arXiv 2303.05479; Zhou et al. 2024, arXiv 2412.07762).
3. **Fine-tune** with a share of each batch from the demonstrations (Ball et al. 2023, RLPD, arXiv 2302.02948), falling to nothing, and
   cloning still in the actor's loss. Acting and target take whichever of clone and actor the critic values more (Hu et al. 2023,
   IBRL, arXiv 2311.02198). Regular reviews on validation starts keep the best policy, which is the one returned, and take the
   learner back to it when it falls behind.

Gradient regression: Parag et al. 2022 and Grandesso et al. 2023 (CACTO, arXiv 2211.06625; CACTO-SL, arXiv 2312.10666).
Each part has a switch in `WarmStartConfig`, so that it can be ablated.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optctl.errors import require
from optctl.hybrid.dataset import load
from optctl.hybrid.demonstrations import Demonstrations, demonstrations_from
from optctl.hybrid.warm_start.clone import Targets, Teacher, clone
from optctl.hybrid.warm_start.config import WarmStartConfig
from optctl.hybrid.warm_start.critic import collect, fit_critic
from optctl.learning.data.mixed import MixedReplay
from optctl.learning.data.replay import Replay, Transition
from optctl.problem import Problem
from optctl.problem.trajectory import Trajectory
from optctl.solvers import solve_many, tvlqr


class WarmStart:
    """The warm start of one agent. `run` does it; `state_dict` holds what fine-tuning needs of it afterwards."""

    def __init__(
        self, problem: Problem, agent: Any, online: Replay, config: WarmStartConfig, *, reward_scale: float = 1.0
    ) -> None:
        self.problem, self.agent, self.config, self.reward_scale = problem, agent, config, reward_scale
        self.replay = MixedReplay(online, config.demonstration_share, config.share_iterations)
        self.done = False
        self.kept: Any = None
        self.kept_cost = math.inf

    def run(self, env: Any, *, seed: int = 0, progress: Callable[[str], None] | None = None) -> dict[str, float]:
        """Solve, clone, fit; returns the seconds of each part."""
        tell = progress or (lambda text: None)
        config, agent, problem = self.config, self.agent, self.problem
        generator = torch.Generator(agent.device).manual_seed(seed)
        clock, seconds = time.perf_counter(), {}

        def lap(part: str) -> None:
            nonlocal clock
            now = time.perf_counter()
            seconds[part], clock = now - clock, now

        tell("reading" if config.dataset else f"solving {config.num_starts} optimal trajectories")
        data = demonstrate(problem, config, gamma=agent.config.gamma, seed=seed)
        lap("solve")
        targets = Targets(data, agent.device, agent.dtype, self.reward_scale)
        self.replay.demonstrate(targets.transition)
        agent.normalizer.update(targets.obs)
        agent.normalizer.freeze()
        if config.clone:
            tell(f"cloning {len(data)} demonstrated decisions")
            clone(agent, targets, config, generator)
            lap("clone")
            if config.teacher:
                agent.hooks.teacher = Teacher(agent)
        if config.fit_critic:
            tell("fitting the critic to the cloned policy")
            collect(env, agent, self.replay, config.rollout_steps, seed, self.reward_scale)
            fit_critic(agent, self.replay, targets, config, generator)
            lap("critic")
        self._keep_cloning()
        self.done = True
        return seconds

    def _keep_cloning(self) -> None:
        """Add mean |tanh(μ) − a*|² on demonstrations to the actor's loss: improvement must not forget them."""
        weight = self.config.cloning_weight
        if weight == 0:
            return

        def penalty(agent: Any, obs: Tensor, batch: Transition) -> Tensor:
            demonstrations = self.replay.demonstrations
            assert demonstrations is not None  # since `run`, or loaded with the replay
            shown = demonstrations.sample(obs.shape[0], 1, agent.generator)
            return weight * (agent.actor.policy(agent.normalizer(shown.obs[0])) - shown.action[0]).square().mean()

        self.agent.hooks.actor_penalty = penalty

    def review(self, cost: float) -> None:
        """Told the learner's `cost` on the validation starts: keep it if that is the least so far, or take it back if it fell behind."""
        if self.kept is None:
            self.kept = copy.deepcopy(self.agent)
        behind = cost - self.kept_cost
        if behind < 0:
            _copy_networks(self.agent, self.kept)
            self.kept_cost = cost
        elif not behind <= self.config.review_tolerance * abs(self.kept_cost):
            _copy_networks(self.kept, self.agent)

    def state_dict(self) -> dict[str, Any]:
        teacher = self.agent.hooks.teacher
        state: dict[str, Any] = {"done": int(self.done), "kept_cost": self.kept_cost}
        if self.kept is not None:
            state["kept"] = {name: network.values for name, network in self.kept.networks.items()}
        if teacher is not None:
            state |= {"actor": teacher.actor.mlp.values, "normalizer": teacher.normalizer.state_dict()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.done, self.kept_cost = bool(state["done"]), state["kept_cost"]
        if self.done:
            self.agent.normalizer.freeze()
            self._keep_cloning()
        if "actor" in state:
            teacher = Teacher(self.agent)
            teacher.actor.mlp.values.copy_(state["actor"])
            teacher.normalizer.load_state_dict(state["normalizer"])
            self.agent.hooks.teacher = teacher
        if "kept" in state:
            self.kept = copy.deepcopy(self.agent)
            for name, values in state["kept"].items():
                self.kept.networks[name].values.copy_(values)


def _copy_networks(source: Any, target: Any) -> None:
    for name, network in source.networks.items():
        target.networks[name].values.copy_(network.values)


def demonstrate(problem: Problem, config: WarmStartConfig, *, gamma: float = 1.0, seed: int = 0) -> Demonstrations:
    """Demonstrations of `config.num_starts` optima: those of its data set, or else solved from random starts."""
    if config.dataset is not None:
        trajectories, params, gains, hessians = _stored(problem, config)
    else:
        if config.steps is not None:
            require(problem.horizon == "infinite", "steps", "be None for a finite horizon", f"is {config.steps}")
            problem = problem.replace(steps=config.steps)
        params = None
        trajectories, gains, hessians = _solved(problem, config.num_starts, seed)
    return demonstrations_from(
        problem,
        trajectories,
        gains,
        hessians,
        gamma=gamma,
        perturbed=config.perturbed,
        spread=config.spread,
        seed=seed,
        params=params,
    )


def _stored(problem: Problem, config: WarmStartConfig) -> tuple[Trajectory, np.ndarray, np.ndarray, np.ndarray]:
    """Trajectories, parameters, gains and Hessians of the data set's first optima."""
    found = load(Path(str(config.dataset)))
    require(
        found.metadata["fingerprint"] == problem.fingerprint,
        "dataset",
        f"be one of `{problem.name}`",
        f"is one of `{found.metadata['problem']}` with another step, cost, observation or horizon",
    )
    require(len(found) > 0, "dataset", "hold trajectories", "is empty")
    trajectories, params = found.trajectory[: config.num_starts], found.params[: config.num_starts]
    feedback = tvlqr(problem, trajectories, params)
    return trajectories, params, feedback.K, feedback.P


def _solved(problem: Problem, num: int, seed: int) -> tuple[Trajectory, np.ndarray, np.ndarray]:
    """Trajectories, gains and Hessians of the optima found from random starts."""
    starts = problem.initial_state.sample(np.random.default_rng(seed), num)
    solutions = solve_many(problem, starts, seed=seed, rounds=1)  # the last basins are not worth their time
    solved = np.flatnonzero(np.isfinite(solutions.values))
    require(len(solved) > 0, "problem", "have optimal trajectories to learn from", "no start could be solved")
    trajectories = solutions.trajectory[solved]
    if solutions.gains is not None and solutions.hessians is not None:
        return trajectories, solutions.gains[solved], solutions.hessians[solved]
    feedback = tvlqr(problem, trajectories)
    return trajectories, feedback.K, feedback.P

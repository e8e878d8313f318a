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
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from optctl.errors import require
from optctl.hybrid.demonstrations import Demonstrations, demonstrations_from
from optctl.learning.data.experience import Experience
from optctl.learning.data.replay import Replay, Transition
from optctl.learning.optimizer import Adam
from optctl.problem import Problem


@dataclass(frozen=True, kw_only=True)
class WarmStartConfig:
    """Settings of the warm start; every part can be switched off."""

    num_starts: int = 128
    """Optimal trajectories solved, >= 1."""
    steps: int | None = None
    """Intervals of each, >= 1; `None`: the problem's own. Fewer are enough where an infinite horizon comes to rest early."""
    perturbed: float = 0.3
    """Perturbed states around the demonstrated ones, per demonstrated state, >= 0."""
    spread: float = 0.05
    """Their standard deviation in units of that of the demonstrated states, >= 0."""
    clone: bool = True
    """Clone the actor from the demonstrations."""
    clone_updates: int = 7000
    clone_batch: int = 128
    clone_lr: float = 1e-2
    """Falls to zero linearly."""
    initial_std: float = 0.1
    """Standard deviation of the cloned policy before the tanh, > 0."""
    fit_critic: bool = True
    """Fit the critic to the cloned policy before any improvement."""
    critic_updates: int = 200
    critic_batch: int = 256
    rollout_steps: int = 50
    """Steps of all environments with the cloned policy before the fit, >= 1."""
    value_weight: float = 1.0
    """Weight of the regression on the demonstrated cost-to-go; 0 switches it off."""
    costate_weight: float = 0.1
    """Weight of the regression on its gradient; 0 switches it off."""
    demonstration_share: float = 0.5
    """Share of each batch from demonstrations at the start of fine-tuning, in [0, 1]."""
    share_iterations: int = 500
    """Iterations over which that share falls to zero, >= 1."""
    cloning_weight: float = 5.0
    """Weight of cloning the demonstrations in the actor's loss while fine-tuning; 0 switches it off."""
    teacher: bool = True
    """Act and bootstrap with whichever of clone and actor the critic values more."""
    review_every: int = 10
    """Iterations between reviews, >= 0; 0: none, and the latest policy is returned instead of the best reviewed one."""
    review_starts: int = 256
    """Validation starts, >= 1, drawn apart from those of the learning curve."""
    review_tolerance: float = 0.01
    """By how much of its cost the learner may fall behind the best policy before it is taken back, >= 0."""

    def __post_init__(self) -> None:
        least = dict.fromkeys(
            ("num_starts", "clone_batch", "rollout_steps", "share_iterations", "review_starts"), 1
        ) | {"critic_batch": 2}
        names = (
            "perturbed",
            "spread",
            "clone_updates",
            "critic_updates",
            "value_weight",
            "costate_weight",
            "cloning_weight",
            "review_every",
            "review_tolerance",
        )
        for name, bound in (least | dict.fromkeys(names, 0)).items():
            value = getattr(self, name)
            require(math.isfinite(value) and value >= bound, name, f"be at least {bound}", f"is {value!r}")
        for name in ("clone_lr", "initial_std"):
            value = getattr(self, name)
            require(0 < value < math.inf, name, "be positive", f"is {value!r}")
        require(
            0 <= self.demonstration_share <= 1,
            "demonstration_share",
            "be in [0, 1]",
            f"is {self.demonstration_share!r}",
        )


class MixedReplay:
    """A replay of experience that fills part of each batch from demonstrations; that part falls linearly with every call."""

    def __init__(self, online: Replay, share: float, calls: int) -> None:
        self.online, self.share, self.calls = online, share, calls
        self.demonstrations: Replay | None = None
        self.done = 0

    def demonstrate(self, transition: Transition) -> None:
        """Set the demonstrations."""
        num, obs_dim = transition.obs.shape
        device, dtype = transition.obs.device, transition.obs.dtype
        self.demonstrations = Replay(num, obs_dim, transition.action.shape[1], device=device, dtype=dtype)
        self.demonstrations.add(transition)

    def __len__(self) -> int:
        return len(self.online)

    def add(self, transition: Transition) -> None:
        self.online.add(transition)

    def sample(self, batch_size: int, num_batches: int, generator: torch.Generator) -> Transition:
        self.done += 1
        share = self.share * max(0.0, 1.0 - (self.done - 1) / self.calls)
        return self.mix(batch_size, num_batches, share, generator)

    def mix(self, batch_size: int, num_batches: int, share: float, generator: torch.Generator) -> Transition:
        """Batches with this share from the demonstrations."""
        demonstrated = round(batch_size * share)
        parts = []
        if self.demonstrations is not None and demonstrated > 0:
            parts.append(self.demonstrations.sample(demonstrated, num_batches, generator))
        if not parts or demonstrated < batch_size:
            demonstrated = demonstrated if parts else 0
            parts.append(self.online.sample(batch_size - demonstrated, num_batches, generator))
        return (
            Transition(*(torch.cat(fields, dim=1) for fields in zip(*parts, strict=True)))
            if len(parts) > 1
            else parts[0]
        )

    def state_dict(self) -> dict[str, Any]:
        state = {"online": self.online.state_dict(), "done": self.done}
        if self.demonstrations is not None:
            state["demonstrations"] = self.demonstrations.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.online.load_state_dict(state["online"])
        self.done = int(state["done"])
        if "demonstrations" in state:
            rows = state["demonstrations"]["rows"]
            own = self.online
            self.demonstrations = Replay(
                len(rows), own.obs_dim, own.action_dim, device=own.rows.device, dtype=own.rows.dtype
            )
            self.demonstrations.load_state_dict(state["demonstrations"])


class Targets:
    """Demonstrations as tensors, and the losses that regress on them."""

    def __init__(self, data: Demonstrations, device: torch.device | str, dtype: torch.dtype) -> None:
        tensor = lambda a: torch.as_tensor(a, device=device).to(dtype)
        self.obs, self.action = tensor(data.obs), tensor(data.action)
        self.jacobian = tensor(data.obs_jacobian)
        self.value, self.gradient = tensor(data.discounted_value), tensor(np.nan_to_num(data.discounted_gradient))
        self.known = tensor(np.isfinite(data.discounted_gradient).all(axis=-1, keepdims=True))
        # Gradients are compared in units in which the value varies by its own spread over the spread of each state.
        self.state_scale = tensor(data.state.std(axis=0) + 1e-6)
        self.transition = Transition(
            self.obs,
            self.action,
            tensor(data.reward),
            tensor(data.next_obs),
            torch.as_tensor(data.terminated, device=device),
        )

    def pick(self, size: int, generator: torch.Generator) -> Tensor:
        return torch.randint(len(self.obs), (size,), generator=generator, device=self.obs.device)

    def critic_loss(self, agent: Any, index: Tensor, value_weight: float, costate_weight: float) -> Tensor:
        """w_v mean (Q + s J)² + w_c mean huber(S_x (∂Q/∂x + s ∂J/∂x)) at the demonstrated actions.

        s is the reward scale, S_x the spread of each state. Huber, because costates are huge where trajectories part. The second mean
        is over the demonstrations whose gradient is given.
        """
        scale = agent.config.reward_scale
        raw = self.obs[index].requires_grad_()
        q = agent.critic(agent.normalizer(raw), self.action[index])
        loss = value_weight * (q + scale * self.value[index]).square().mean()
        if costate_weight:
            per_obs = torch.stack([torch.autograd.grad(member.sum(), raw, create_graph=True)[0] for member in q])
            per_state = torch.einsum("eby,byx->ebx", per_obs, self.jacobian[index])
            known = self.known[index].expand_as(per_state)
            error = known * self.state_scale * (per_state + scale * self.gradient[index])
            total = huber_loss(error, torch.zeros_like(error), reduction="sum")
            loss = loss + costate_weight * total / known.sum().clamp(min=1)
        return loss


def clone(agent: Any, targets: Targets, config: WarmStartConfig, generator: torch.Generator) -> float:
    """Fit the agent's actor to the demonstrations: mean |a(μ) − a*|² + 0.01 mean (log σ − log σ₀)²; the final loss.

    The gradient is written out (see `optctl.learning.networks`): at this size it is twice as fast as autograd.
    """
    mlp, size = agent.actor.mlp, config.clone_batch
    obs, action = agent.normalizer(targets.obs).mT.contiguous(), targets.action.mT.contiguous()
    wanted = math.log(config.initial_std)
    optimizer = Adam(mlp.flat, config.clone_lr)
    picks = targets.pick(config.clone_updates * size, generator).view(-1, size)
    error = torch.zeros(1)
    for k, index in enumerate(picks):
        optimizer.lr.fill_(config.clone_lr * (1 - k / config.clone_updates))
        out, tape = mlp.forward(obs[:, index])
        mean, log_std = out[0].chunk(2)
        squashed = mean.tanh()
        error = agent.actor.bounded(squashed) - action[:, index]
        slopes = torch.cat((2 * agent.actor.stretch * error * (1 - squashed.square()), 0.02 * (log_std - wanted)))
        optimizer.step(mlp.backward(tape, slopes.unsqueeze(0) / error.numel()))
    agent.reset_followers()
    return float(error.square().mean())


def collect(env: Any, agent: Any, replay: Experience, steps: int, seed: int) -> None:
    """Run the policy as it is, with its exploration noise, for `steps` steps of all environments."""
    obs = env.reset(seed=seed)[0].clone()
    for _ in range(steps):
        action = agent.act(obs, explore=True)
        following, reward, terminated, _, info = env.step(action)
        replay.add(Transition(obs, action, reward, info["final_obs"], terminated))
        obs = following.clone()


def fit_critic(
    agent: Any, replay: MixedReplay, targets: Targets, config: WarmStartConfig, generator: torch.Generator
) -> None:
    """Policy evaluation of the actor as it stands: the actor does not move."""

    def penalty(agent: Any, obs: Tensor, batch: Transition) -> Tensor:
        index = targets.pick(config.critic_batch // 2, generator)
        return targets.critic_loss(agent, index, config.value_weight, config.costate_weight)

    if config.value_weight or config.costate_weight:
        agent.critic_penalty = penalty
    teacher, agent.teacher = agent.teacher, None  # the clone alone is evaluated
    for _ in range(config.critic_updates):
        agent.update(replay.mix(config.critic_batch, 1, 0.5, generator), update_actor=False)
    agent.critic_penalty, agent.teacher = None, teacher
    agent.reset_followers()


class Teacher:
    """The actor as cloned: raw observations (batch, obs_dim) → actions (batch, action_dim), frozen."""

    def __init__(self, agent: Any) -> None:
        self.actor = copy.deepcopy(agent.actor)
        self.normalizer = copy.deepcopy(agent.normalizer)

    @torch.no_grad()
    def __call__(self, obs: Tensor) -> Tensor:
        return self.actor.mean_action(self.normalizer(obs))


_NETWORKS = ("actor", "average_actor", "critic", "target_critic")


class WarmStart:
    """The warm start of one agent. `run` does it; `state_dict` holds what fine-tuning needs of it afterwards."""

    def __init__(self, problem: Problem, agent: Any, online: Replay, config: WarmStartConfig) -> None:
        self.problem, self.agent, self.config = problem, agent, config
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

        tell(f"solving {config.num_starts} optimal trajectories")
        data = demonstrate(problem, config, gamma=agent.config.gamma, seed=seed)
        lap("solve")
        targets = Targets(data, agent.device, agent.dtype)
        self.replay.demonstrate(targets.transition)
        agent.normalizer.update(targets.obs)
        agent.normalizer.freeze()
        if config.clone:
            tell(f"cloning {len(data)} demonstrated decisions")
            clone(agent, targets, config, generator)
            lap("clone")
            if config.teacher:
                agent.teacher = Teacher(agent)
        if config.fit_critic:
            tell("fitting the critic to the cloned policy")
            collect(env, agent, self.replay, config.rollout_steps, seed)
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
            mean, _ = agent.actor(agent.normalizer(shown.obs[0]))
            return weight * (agent.actor.bounded(mean.tanh()) - shown.action[0]).square().mean()

        self.agent.actor_penalty = penalty

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
        teacher = self.agent.teacher
        state: dict[str, Any] = {"done": int(self.done), "kept_cost": self.kept_cost}
        if self.kept is not None:
            state["kept"] = {name: getattr(self.kept, name).mlp.values for name in _NETWORKS}
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
            self.agent.teacher = teacher
        if "kept" in state:
            self.kept = copy.deepcopy(self.agent)
            for name, values in state["kept"].items():
                getattr(self.kept, name).mlp.values.copy_(values)


def _copy_networks(source: Any, target: Any) -> None:
    for name in _NETWORKS:
        getattr(target, name).mlp.values.copy_(getattr(source, name).mlp.values)


def demonstrate(problem: Problem, config: WarmStartConfig, *, gamma: float = 1.0, seed: int = 0) -> Demonstrations:
    """Solve from `config.num_starts` random starts and make demonstrations of every optimum found."""
    from optctl.solvers import solve_many, tvlqr

    if config.steps is not None:
        require(problem.horizon == "infinite", "steps", "be None for a finite horizon", f"is {config.steps}")
        problem = problem.replace(steps=config.steps)
    starts = problem.initial_state.sample(np.random.default_rng(seed), config.num_starts)
    solutions = solve_many(problem, starts, seed=seed, rounds=1)  # the last basins are not worth their time
    solved = np.flatnonzero(np.isfinite(solutions.values))
    require(len(solved) > 0, "problem", "have optimal trajectories to learn from", "no start could be solved")
    trajectories = solutions.trajectory[solved]
    if solutions.gains is not None and solutions.hessians is not None:
        gains, hessians = solutions.gains[solved], solutions.hessians[solved]
    else:
        feedback = tvlqr(problem, trajectories)
        gains, hessians = feedback.K, feedback.P
    return demonstrations_from(
        problem, trajectories, gains, hessians, gamma=gamma, perturbed=config.perturbed, spread=config.spread, seed=seed
    )  # fmt: skip

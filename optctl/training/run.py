"""Train an agent on a problem: from scratch or from optimal trajectories, interruptible, and resumable bit for bit.

`train` is what people call; `TrainingRun` is one run with everything that its continuation depends on, and is what a checkpoint holds.
"""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from optctl.agents import AGENTS
from optctl.codegen.launch import one_thread
from optctl.envs import CATALOGUE, resolve_problem
from optctl.errors import require
from optctl.files import check_writable
from optctl.hybrid.warm_start import WarmStart, WarmStartConfig
from optctl.problem import Problem
from optctl.problem.controller import check_states, rollout
from optctl.simulation import make_vec
from optctl.training import checkpoint
from optctl.training.config import TrainConfig
from optctl.training.loops import LOOPS
from optctl.training.policy import Policy
from optctl.training.settings import natural_reward_scale, settings

CHECKPOINT = "checkpoint.safetensors"


class TrainingRun:
    """One run: environment, agent, loop, learning curve and clock.

        run = TrainingRun("sac", problem, seed=0)
        for metrics in run.iterate():
            ...

    Leaving the loop ends the run early; `run.save(path)` keeps it.
    """

    def __init__(
        self,
        agent: str,
        problem: Problem,
        *,
        warm_start: WarmStartConfig | bool = False,
        agent_config: Any = None,
        loop_config: Any = None,
        config: TrainConfig | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        require(agent in AGENTS, "agent", f"be one of {', '.join(AGENTS)}", f"is {agent!r}")
        require(isinstance(seed, int) and seed >= 0, "seed", "be a non-negative integer", f"is {seed!r}")
        entry = AGENTS[agent]
        self.name, self.problem, self.seed, self.device = agent, problem, seed, device
        config = config or TrainConfig()
        scale = natural_reward_scale(problem) if config.reward_scale is None else config.reward_scale
        self.config = dataclasses.replace(config, reward_scale=scale)
        self.warm_config = WarmStartConfig() if warm_start is True else (warm_start or None)
        require(
            self.warm_config is None or entry.cloneable,
            "warm_start",
            f"be off for `{agent}`, which has no actor and action-value critic to prepare",
            "is on",
        )
        agent_class, config_class = entry.load()
        loop_class = LOOPS[entry.loop]
        self.agent_config = agent_config or config_class()
        self.loop_config = _within(loop_config or loop_class.Config(), self.warm_config)
        self.env = make_vec(problem, self.config.num_envs, device=device, randomize=self.config.randomize)
        sizes = (self.env.obs_dim, self.env.action_dim)
        self.agent = agent_class(*sizes, self.agent_config, device=device, dtype=self.env.dtype, seed=seed)
        self.loop: Any = loop_class(self.env, self.agent, self.loop_config, seed=seed, reward_scale=scale)
        self.warm: WarmStart | None = None
        if self.warm_config is not None:
            self.warm = WarmStart(problem, self.agent, self.loop.replay, self.warm_config, reward_scale=scale)
            self.loop.replay = self.warm.replay
        self.curve: list[dict[str, float]] = []
        self.seconds = 0.0
        self.timings: dict[str, float] = {}
        self.stage = ""
        self.watch: Callable[[TrainingRun], None] | None = None
        self.starts = problem.initial_state.sample(np.random.default_rng(12345), self.config.evaluation_starts)

    @property
    def label(self) -> str:
        return f"{self.name}-warm" if self.warm else self.name

    def policy(self) -> Policy:
        """What the run has to show: the agent, or after a warm start the best that its reviews have seen."""
        return self._policy(self.warm.kept if self.warm and self.warm.kept is not None else self.agent)

    def learner(self) -> Policy:
        """The agent as it stands."""
        return self._policy(self.agent)

    def _policy(self, agent: Any) -> Policy:
        return Policy(self.problem, agent, self.label, self.seconds, run=self)

    def evaluate(self, starts: np.ndarray | None = None, policy: Policy | None = None) -> float:
        """Mean total cost of the policy over the evaluation starts, in float64 (`optctl.rollout`)."""
        starts = self.starts if starts is None else starts
        return float(rollout(self.problem, policy or self.policy(), starts).total_cost.mean())

    def prepare(self) -> None:
        """The warm start: solve, clone, fit the critic. Once; a resumed run has it behind it."""

        def tell(stage: str) -> None:
            self.stage = stage
            if self.watch is not None:
                self.watch(self)

        if self.warm and not self.warm.done:
            start = time.perf_counter()
            self.timings = self.warm.run(self.env, seed=self.seed, progress=tell)
            self.loop.obs.copy_(self.env.reset(seed=self.seed)[0])
            self._review()
            self.seconds += time.perf_counter() - start
        if not self.curve:
            self._log()

    def iterate(self) -> Iterator[dict[str, Any]]:
        """One vector step and its updates per item, until the budget is spent. Evaluations are not counted in `seconds`."""
        with one_thread():
            self.prepare()
        steps = iter(self.loop)
        while not self.finished:
            with one_thread():
                start = time.perf_counter()
                metrics = next(steps)
                self._review()
                self.seconds += time.perf_counter() - start
                if self.loop.iteration % self.config.evaluate_every == 0 or self.finished:
                    self._log()
            yield metrics

    def _review(self) -> None:
        """Every so many iterations, the warm start looks at the learner on its validation starts."""
        if (
            self.warm is None
            or not self.warm.config.review_every
            or self.loop.iteration % self.warm.config.review_every
        ):
            return
        starts = self.problem.initial_state.sample(np.random.default_rng(54321), self.warm.config.review_starts)
        self.warm.review(self.evaluate(starts, self.learner()))

    @property
    def finished(self) -> bool:
        spent = self.config.budget_seconds is not None and self.seconds >= self.config.budget_seconds
        return spent or self.loop.iteration >= self.config.iterations

    def _log(self) -> None:
        point = {
            "iteration": self.loop.iteration,
            "steps": self.loop.steps * self.config.num_envs,
            "seconds": self.seconds,
            "cost": self.evaluate(),
        }
        if self.warm:
            point["learner"] = self.evaluate(policy=self.learner())
        self.curve.append(point)

    # --- saving ---------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write everything that the continuation depends on into one file, atomically."""
        checkpoint.save(
            Path(path),
            {"loop": self.loop.state_dict(), "warm": self.warm.state_dict() if self.warm else {}},
            {
                "agent": self.name,
                "problem": self.problem.name,
                "fingerprint": self.problem.fingerprint,
                "seed": self.seed,
                "seconds": self.seconds,
                "timings": self.timings,
                "curve": self.curve,
                "agent_config": dataclasses.asdict(self.agent_config),
                "loop_config": dataclasses.asdict(self.loop_config),
                "config": dataclasses.asdict(self.config),
                "warm_config": dataclasses.asdict(self.warm_config) if self.warm_config else None,
            },
        )

    @classmethod
    def load(
        cls, path: str | Path, problem: Problem | str | None = None, *, device: str = "cpu", **changes: Any
    ) -> TrainingRun:
        """The run saved at `path` (a file, or a folder that holds one). A problem outside the catalogue must be given.

        `changes` replace fields of its `TrainConfig`, such as a longer budget.
        """
        path = Path(path)
        state, meta = checkpoint.load(path / CHECKPOINT if path.is_dir() else path)
        require(
            problem is not None or meta["problem"] in CATALOGUE,
            "problem",
            "be given, because the checkpoint's is not in the catalogue",
            f"is None for `{meta['problem']}`",
        )
        problem = resolve_problem(meta["problem"] if problem is None else problem)
        require(
            problem.fingerprint == meta["fingerprint"],
            "problem",
            f"be the problem `{meta['problem']}` that the checkpoint was trained on",
            f"`{problem.name}` has other dynamics, cost, bounds or horizon",
        )
        entry = AGENTS[meta["agent"]]
        _, config_class = entry.load()
        run = cls(
            meta["agent"],
            problem,
            warm_start=WarmStartConfig(**meta["warm_config"]) if meta["warm_config"] else False,
            agent_config=config_class(**_tuples(meta["agent_config"])),
            loop_config=LOOPS[entry.loop].Config(**meta["loop_config"]),
            config=TrainConfig(**(meta["config"] | changes)),
            seed=meta["seed"],
            device=device,
        )
        run.loop.load_state_dict(state["loop"])
        if run.warm:
            run.warm.load_state_dict(state["warm"])
        run.curve, run.seconds, run.timings = list(meta["curve"]), meta["seconds"], dict(meta["timings"])
        return run


def _within(loop: Any, warm: WarmStartConfig | None) -> Any:
    """The loop of a run with that warm start: a clone acts from the start."""
    return loop if warm is None or not warm.clone else loop.prepared()


_EXTENT = ("iterations", "budget_seconds", "checkpoint_seconds")
"""Fields of `TrainConfig` that a resumed run may change: how far it goes, not where."""


def _check_same(name: str, given: Any, own: Any) -> None:
    """Raise unless what is asked of a resumed run is what it was begun with."""
    if type(given) is type(own) and dataclasses.is_dataclass(own):
        for field in dataclasses.fields(own):
            _check_same(f"{name}.{field.name}", getattr(given, field.name), getattr(own, field.name))
    else:
        require(given == own, name, f"be {own!r}, as in the run that is resumed, or absent", f"is {given!r}")


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Within, Ctrl-C sets a flag instead of raising, so that a step is finished and saved; a second Ctrl-C raises."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def handler(number: int, frame: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, handler)
    try:
        yield stop.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def train(
    agent: str,
    problem: Problem | str,
    *,
    warm_start: WarmStartConfig | bool | None = None,
    agent_config: Any = None,
    loop_config: Any = None,
    config: TrainConfig | None = None,
    budget_seconds: float | None = None,
    seed: int | None = None,
    device: str = "cpu",
    out: str | Path | None = None,
    resume: bool = False,
    starts: np.ndarray | None = None,
    progress: Callable[[TrainingRun], None] | None = None,
) -> Policy:
    """Train an agent on a problem and return it as a controller.

    Ctrl-C finishes the iteration at hand, saves and returns what there is: `policy.run.finished` is then False.

    Args:
        agent: A name in `optctl.agents.AGENTS`.
        problem: The problem, or its name in the catalogue.
        warm_start: Begin from optimal trajectories: their settings, or True for the defaults; default: no.
        agent_config: The agent's configuration; default: that of `optctl.training.settings`.
        loop_config: The configuration of the agent's loop; default: likewise.
        config: Budget, environments and evaluation; default: likewise.
        budget_seconds: End the run earlier, after so many seconds of training [s], after the warm start at the soonest.
        seed: Seed of everything random, not negative; default 0.
        device: "cpu", "cuda" or "cuda:N".
        out: Folder for `checkpoint.safetensors`, written every `config.checkpoint_seconds` and at the end.
        resume: Continue the run found in `out`, if there is one. What is not given is then that run's own. `budget_seconds`, `device`,
            `starts` and the fields `iterations`, `budget_seconds` and `checkpoint_seconds` of `config` may differ from it.
        starts: Initial states (S, n_x) of the learning curve; default: `config.evaluation_starts` random ones.
        progress: Called with the run after every iteration.

    Returns:
        A `Policy`; `policy.run` is the run, with its learning curve and timings.

    Raises:
        ArgumentError: An argument is not what it must be, or differs from the run that is resumed; the sentence names it.
    """
    problem = resolve_problem(problem)
    require(agent in AGENTS, "agent", f"be one of {', '.join(AGENTS)}", f"is {agent!r}")
    if problem.constrained:
        warnings.warn(
            f"`{problem.name}` has constraints beyond its control bounds: {agent} does not know them, `compare` reports violations.",
            stacklevel=2,
        )
    path = Path(out) / CHECKPOINT if out is not None else None
    require(path is not None or not resume, "resume", "come with `out`, the folder of the run", "`out` was not given")
    if path is not None:
        check_writable(path.parent)
        require(resume or not path.exists(), "out", "hold no other run, or come with `resume`", f"{path} exists")
    if resume and path is not None and path.exists():
        changes = {} if config is None else {name: getattr(config, name) for name in _EXTENT}
        changes |= {} if budget_seconds is None else {"budget_seconds": budget_seconds}
        run = TrainingRun.load(path, problem, device=device, **changes)
        if loop_config is not None:
            loop_config = _within(loop_config, run.warm_config)
        if config is not None:
            same = {name: getattr(run.config, name) for name in _EXTENT}
            if config.reward_scale is None:
                same["reward_scale"] = run.config.reward_scale
            config = dataclasses.replace(config, **same)
        own_warm = run.warm_config or False
        asked = {
            "agent": (agent, run.name),
            "seed": (seed, run.seed),
            "agent_config": (agent_config, run.agent_config),
            "loop_config": (loop_config, run.loop_config),
            "config": (config, run.config),
            "warm_start": (warm_start, bool(own_warm) if isinstance(warm_start, bool) else own_warm),
        }
        for name, (given, own) in asked.items():
            if given is not None:
                _check_same(name, given, own)
    else:
        defaults = settings(agent, problem, warm_start=bool(warm_start))
        config = config or defaults.train
        if budget_seconds is not None:
            config = dataclasses.replace(config, budget_seconds=budget_seconds)
        run = TrainingRun(
            agent,
            problem,
            warm_start=defaults.warm if warm_start is True else warm_start or False,
            agent_config=agent_config or defaults.agent,
            loop_config=loop_config or defaults.loop,
            config=config,
            seed=0 if seed is None else seed,
            device=device,
        )
    if starts is not None:
        run.starts = check_states(problem, starts, "starts")
    saved = time.monotonic()
    run.watch = progress
    with interruptible() as stopped:
        for _ in run.iterate():
            if progress is not None:
                progress(run)
            if path is not None and time.monotonic() - saved > run.config.checkpoint_seconds:
                run.save(path)
                saved = time.monotonic()
            if stopped():
                break
    if path is not None:
        run.save(path)
    return run.policy()


def load_agent(path: str | Path, problem: Problem | str | None = None, *, device: str = "cpu") -> Policy:
    """The trained policy saved at `path` by `train(..., out=...)`."""
    return TrainingRun.load(path, problem, device=device).policy()

"""Trajectory data sets: thousands of trajectories of one problem in one file, and how certified optimal ones are made in resumable chunks.

Cloning, critics, offline learning and models read this format; `to_minari` and `from_minari` exchange it with Minari.

Starts are drawn from the problem's initial distribution, plants (with `randomize`) from its parameter ranges; chunk c draws from
the stream (seed, c). Of the extremals found for a start the cheapest is kept, and only certified ones enter the file. A finished
chunk is a file of its own until the end, so an interrupted run continues where it stopped and ends with the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from optctl.envs import resolve_problem
from optctl.errors import FileError, require
from optctl.files import check_writable, write_atomically
from optctl.optional import library
from optctl.problem import Problem
from optctl.problem.trajectory import Trajectory
from optctl.solvers import solve_many, tvlqr
from optctl.solvers.select import pulses

FORMAT = 2
NAME = "demonstrations.safetensors"

Progress = Callable[[int, int], None]
"""Called with (starts done, starts in all)."""


@dataclass(frozen=True, eq=False)
class TrajectoryDataset:
    """N trajectories of one problem; numpy float64. Those that `generate` makes are certified optimal."""

    trajectory: Trajectory
    """Times (T+1,), states (N, T+1, n_x), controls (N, T, n_u), costs, terminal cost, costates λ = ∂J*/∂x (N, T+1, n_x).
    Where a costate or a gain is not given, it is NaN."""
    values: np.ndarray
    """Cost-to-go (N, T+1) along each trajectory; `values[:, 0]` is J*."""
    gains: np.ndarray
    """K (N, T, n_u, n_x) of u = u* − K (x − x*)."""
    params: np.ndarray
    """(N, n_p)."""
    stationarity: np.ndarray
    """(N,): largest projected gradient of the Hamiltonian."""
    basins: np.ndarray
    """(N,): distinct local optima met on the way to the one that is kept."""
    metadata: dict[str, Any]
    """Problem, its fingerprint, seed, counts, tolerance, conventions."""

    def __len__(self) -> int:
        return len(self.values)


def _chunk(problem: Problem, seed: int, chunk: int, num: int, randomize: bool) -> dict[str, np.ndarray]:
    """Draw, solve, keep what is certified."""
    rng = np.random.default_rng([seed, chunk])
    starts = problem.initial_state.sample(rng, num)
    params = problem.param_values[None]
    if randomize:
        params = rng.uniform(problem.param_low, problem.param_high, (num, problem.n_p))
    method = "auto" if pulses(problem, num) else "ddp"  # batched, however few the starts
    found = solve_many(problem, starts, method=method, params=params, seed=seed)
    path, kept = found.trajectory, found.certified
    gains = tvlqr(problem, path, params).K if found.gains is None else found.gains
    assert path.costates is not None
    basins = np.ones(num, dtype=int) if found.basins is None else found.basins
    arrays = {
        "states": path.states,
        "controls": path.controls,
        "costs": path.costs,
        "terminal_cost": path.terminal_cost,
        "costates": path.costates,
        "values": _cost_to_go(path.costs, path.terminal_cost),
        "gains": gains,
        "params": np.broadcast_to(params, (num, problem.n_p)),
        "stationarity": found.residuals["stationarity"],
        "basins": np.asarray(basins),
    }
    return {name: np.ascontiguousarray(array[kept]) for name, array in arrays.items()}


def _about(problem: Problem, num: int, seed: int, randomize: bool, chunk: int) -> dict[str, Any]:
    """What the run is; the same for every part of it."""
    return {
        "format": FORMAT,
        "problem": problem.name,
        "fingerprint": problem.fingerprint,
        "task": problem.task_fingerprint,
        "requested": num,
        "seed": seed,
        "randomize": randomize,
        "chunk": chunk,
        "dt": problem.dt,
        "steps": problem.steps,
        "horizon": problem.horizon,
        "state": list(problem.state),
        "control": list(problem.control),
        "params": list(problem.params),
        "costate": "λ = ∂J*/∂x (minimisation)",
        "gains": "u = u* − K (x − x*)",
    }


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        with safetensors.safe_open(path, framework="np") as file:
            header = file.metadata() or {}
            return {key: file.get_tensor(key) for key in file.keys()}, json.loads(header["optctl"])  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise FileError(f"File {path} is not a demonstration set of optctl ({error}).") from error


def _write(path: Path, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    header = {"optctl": json.dumps(about, sort_keys=True, ensure_ascii=False)}
    write_atomically(path, safetensors.numpy.save(arrays, header))


def generate(
    problem: Problem | str,
    num: int,
    out: Path | str,
    *,
    seed: int = 0,
    randomize: bool = False,
    chunk: int = 1000,
    progress: Progress | None = None,
) -> TrajectoryDataset:
    """Solve `num` starts and write OUT/demonstrations.safetensors with OUT/demonstrations.json beside it.

    Called again with the same arguments it continues an interrupted run, or returns the finished one. A folder that holds a run
    with other arguments is refused (`ArgumentError`).
    """
    p, folder = resolve_problem(problem), Path(out)
    for argument, value in (("num", num), ("chunk", chunk)):
        require(isinstance(value, int) and value >= 1, argument, "be a positive integer", f"is {value!r}")
    require(seed >= 0, "seed", "not be negative", f"is {seed}")
    require(
        not randomize or (p.n_p > 0 and bool((p.param_high > p.param_low).any())),
        "randomize",
        "be off for a problem without parameter ranges",
        "is on",
    )
    require(p.final_time is None, "problem", "have a fixed final time", "its final time is free")
    check_writable(folder)
    about = _about(p, num, seed, randomize, chunk)
    final = folder / NAME
    if final.exists():
        done = load(final)
        _same(done.metadata, about, folder)
        return done
    report = progress or (lambda done, of: None)
    parts = []
    for index, start in enumerate(range(0, num, chunk)):
        size, path = min(chunk, num - start), folder / f"part-{index:05d}.safetensors"
        if path.exists():
            _same(_read(path)[1], about, folder)
        else:
            _write(path, _chunk(p, seed, index, size, randomize), about)
        parts.append(path)
        report(start + size, num)
    pieces = [_read(path)[0] for path in parts]
    arrays = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    about |= {
        "certified": len(arrays["values"]),
        "mean_cost": float(arrays["values"][:, 0].mean()) if len(arrays["values"]) else None,
    }
    _write(final, arrays, about)
    write_atomically(final.with_suffix(".json"), json.dumps(about, indent=1, ensure_ascii=False).encode())
    for path in parts:
        path.unlink()
    return load(final)


def _same(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    for key, value in wanted.items():
        require(
            found.get(key) == value,
            "out",
            "be a folder without another run, or with this one to be continued",
            f"{folder} holds one with {key} {found.get(key)!r} instead of {value!r}",
        )


def load(path: Path | str) -> TrajectoryDataset:
    """The set at `path`: the file, or the folder that holds it. Raises `FileError` where there is none."""
    file = Path(path)
    arrays, about = _read(file / NAME if file.is_dir() else file)
    trajectory = Trajectory(
        times=np.arange(about["steps"] + 1) * about["dt"],
        states=arrays["states"],
        controls=arrays["controls"],
        costs=arrays["costs"],
        terminal_cost=arrays["terminal_cost"],
        costates=arrays["costates"],
    )
    return TrajectoryDataset(
        trajectory=trajectory,
        values=arrays["values"],
        gains=arrays["gains"],
        params=arrays["params"],
        stationarity=arrays["stationarity"],
        basins=arrays["basins"],
        metadata=about,
    )


def to_minari(
    found: TrajectoryDataset, problem: Problem | str, dataset_id: str | None = None, *, author: str | None = None
) -> Any:
    """The set as a dataset of Minari (`pip install 'optctl[minari]'`), in its own folder (`MINARI_DATASETS_PATH`).

    Episodes as the environment gives them: observations y(x) (T+1, n_y) without noise, actions in [−1, 1] (T, n_u), rewards
    −l (T,), the last one minus the terminal cost, and `terminated` (finite horizon) or `truncated` at the end. Beyond that `infos`
    holds `state`, `costate` (NaN: not given) and `value`, each of T+1. The problem must be the one that the set was made from.
    `dataset_id`: default `optctl/<name>/optimal-v0`; one that exists is refused by Minari (`ValueError`).
    """
    p = resolve_problem(problem)
    require(
        p.fingerprint == found.metadata["fingerprint"],
        "problem",
        f"be the one of the set ({found.metadata['problem']})",
        f"is another one ({p.name})",
    )
    minari, gymnasium = library("minari", "Minari", "minari"), library("gymnasium", "Gymnasium", "test")
    library("h5py", "h5py", "minari")
    path, finite = found.trajectory, p.horizon == "finite"
    steps, ends = path.controls.shape[1], np.arange(path.controls.shape[1]) == path.controls.shape[1] - 1
    observe = lambda x, q: np.asarray(p.observation_function(x.T, q, path.times[None, : steps + 1])).T
    assert path.costates is not None
    episodes = [
        minari.data_collector.EpisodeBuffer(
            id=i,
            observations=observe(path.states[i], found.params[i]),
            actions=p.to_action(path.controls[i]),
            rewards=-path.costs[i] - np.where(ends & finite, path.terminal_cost[i], 0.0),
            terminations=ends & finite,
            truncations=ends & (not finite),
            infos={"state": path.states[i], "costate": path.costates[i], "value": found.values[i]},
        )
        for i in range(len(found))
    ]
    box = gymnasium.spaces.Box
    return minari.create_dataset_from_buffers(
        dataset_id or f"optctl/{p.name}/optimal-v0",
        episodes,
        env=_gym_spec(p),
        observation_space=box(-np.inf, np.inf, (p.n_y,), np.float64),
        action_space=box(-1.0, 1.0, (p.n_u,), np.float64),
        algorithm_name="certified extremals by batched DDP",
        author=author,
        description=f"{len(found)} optimal trajectories. {p.description}",
        requirements=["optctl"],
    )


def from_minari(dataset: Any, problem: Problem | str) -> TrajectoryDataset:
    """The trajectories of a dataset of Minari: the dataset, or the name of one that is installed.

    States come from `infos["state"]` where they are, or are the observations of a problem that observes its state. Every episode must
    have the problem's `steps`; others are left out. Costs are those of the problem's own step, not the rewards. Costates and values are
    read from `infos`; without them costates and gains are NaN, and values are what the trajectory goes on to cost.
    """
    p = resolve_problem(problem)
    if isinstance(dataset, str):
        dataset = library("minari", "Minari", "minari").load_dataset(dataset)
    rows: list[dict[str, np.ndarray]] = []
    for episode in dataset.iterate_episodes():
        infos = episode.infos if isinstance(episode.infos, dict) else {}
        states = infos.get("state")
        if states is None:
            require(
                p.observation is None,
                "dataset",
                f"hold `infos['state']`, because `{p.name}` does not observe its state",
                "holds none",
            )
            states = np.asarray(episode.observations)[:, : p.n_x]
        states, actions = np.asarray(states, dtype=float), np.asarray(episode.actions, dtype=float)
        if actions.shape == (p.steps, p.n_u) and states.shape == (p.steps + 1, p.n_x):
            nothing = np.full_like(states, np.nan)
            costates = np.asarray(infos.get("costate", nothing), dtype=float)
            rows.append({"states": states, "controls": p.to_control(actions), "costates": costates})
    require(
        len(rows) > 0,
        "dataset",
        f"hold episodes of {p.steps} actions of shape ({p.n_u},) and states of shape ({p.n_x},)",
        "holds none",
    )
    arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    num, times = len(rows), np.arange(p.steps + 1) * p.dt
    costs = np.stack(
        [
            np.asarray(p.step_function(x[:-1].T, u.T, p.param_values, times[None, :-1])[1]).ravel()
            for x, u in zip(arrays["states"], arrays["controls"], strict=True)
        ]
    )
    ends = np.zeros(num)
    if p.horizon == "finite":
        ends = np.asarray(p.terminal_cost_function(arrays["states"][:, -1].T, p.param_values, p.duration)).ravel()
    trajectory = Trajectory(times=times, costs=costs, terminal_cost=ends, **arrays)
    return TrajectoryDataset(
        trajectory=trajectory,
        values=_cost_to_go(costs, ends),
        gains=np.full((num, p.steps, p.n_u, p.n_x), np.nan),
        params=np.broadcast_to(p.param_values, (num, p.n_p)).copy(),
        stationarity=np.full(num, np.nan),
        basins=np.ones(num, dtype=int),
        metadata=_about(p, num, 0, False, num) | {"source": "minari"},
    )


def _cost_to_go(costs: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """(N, T), (N,) → (N, T + 1)."""
    later = np.cumsum(costs[:, ::-1], axis=1)[:, ::-1]
    return np.concatenate([later, np.zeros((len(costs), 1))], axis=1) + ends[:, None]


def _gym_spec(problem: Problem) -> Any:
    """What Gymnasium makes the problem from, where it is one of the catalogue."""
    import gymnasium

    from optctl.envs import CATALOGUE
    from optctl.gym import gym_id

    known = problem.name in CATALOGUE and resolve_problem(problem.name).fingerprint == problem.fingerprint
    return gymnasium.spec(gym_id(problem.name)) if known else None

"""Source of the batched kernels: any CasADi function over a batch, and the whole public step of an environment.

Kernel arguments are flat arrays; environment i reads entry j of an array with rows of n at `i * n + j`, or at `j` where all
environments share one row: which of the two is decided when the source is generated, for the sake of the vectoriser. One launch
covers environments offset … offset + dim − 1, so a batch can be split over threads; an environment's arithmetic does not depend
on the split.

Random numbers are counter-based: a 64-bit hash (the finaliser of SplitMix64: Steele, Lea, Flood, OOPSLA 2014) of (seed,
environment, episode, clock, purpose) begins a block, and draw k of the block is the hash of block + k · golden ratio. Nothing is
carried from draw to draw, so environment i draws the same numbers in any batch and whatever its neighbours do.
"""

from __future__ import annotations

from collections.abc import Sequence

import casadi as ca
import numpy as np

from optctl.codegen.function import FLAGS, HEADER, kernel
from optctl.codegen.program import Program, build_program
from optctl.codegen.warp_source import Target, constant, emit, helpers, titled, typed
from optctl.problem import Problem

_INTEGERS = """@wp.func_native("return a.data[i];")
def get_int(a: wp.array(dtype=wp.int32), i: wp.int64) -> wp.int32: ...


@wp.func_native("a.data[i] = value;")
def put_int(a: wp.array(dtype=wp.int32), i: wp.int64, value: wp.int32): ...


@wp.func_native("return a.data[i];")
def get_flag(a: wp.array(dtype=wp.bool), i: wp.int64) -> wp.bool: ...


@wp.func_native("a.data[i] = value;")
def put_flag(a: wp.array(dtype=wp.bool), i: wp.int64, value: wp.bool): ...


@wp.func_native("asm volatile(\\"\\");")
def rarely(): ...


"""
# `rarely` marks a branch that is not to be vectorised, that is, not to be computed for everyone.

# --- random numbers ------------------------------------------------------------------------------------------------------

_GOLDEN = "wp.uint64(0x9E3779B97F4A7C15)"
_RANDOM = """@wp.func
def mix(z: wp.uint64):
    z = (z ^ (z >> wp.uint64(30))) * wp.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> wp.uint64(27))) * wp.uint64(0x94D049BB133111EB)
    return z ^ (z >> wp.uint64(31))


@wp.func
def block(key: wp.uint64, i: wp.int64, episode: wp.int32, clock: wp.int32, purpose: wp.uint64):
    stream = mix(key + GOLDEN * (wp.uint64(i) + wp.uint64(1)))
    counter = (wp.uint64(episode) << wp.uint64(32)) | (wp.uint64(clock) << wp.uint64(2)) | purpose
    return mix(stream ^ counter)


@wp.func
def uniform(start: wp.uint64, k: wp.uint64):
    return REAL(mix(start + GOLDEN * (k + wp.uint64(1))) >> wp.uint64(SHIFT)) * REAL(SCALE)


@wp.func
def radius(start: wp.uint64, k: wp.uint64):
    return wp.sqrt(REAL(-2.0) * wp.log(ONE - uniform(start, k)))


@wp.func
def angle(start: wp.uint64, k: wp.uint64):
    return REAL(6.283185307179586) * uniform(start, k)


"""

INITIAL_STATE, PARAMETERS, PROCESS_NOISE, OBSERVATION_NOISE = range(4)
"""Purposes of random blocks."""


def random_functions(target: Target) -> str:
    """The functions `mix`, `block`, `uniform`, `radius` and `angle`."""
    bits = 24 if target.dtype == "float32" else 53
    source = _RANDOM.replace("SHIFT", str(64 - bits)).replace("SCALE", repr(2.0**-bits)).replace("GOLDEN", _GOLDEN)
    return typed(source, target)


def _block(name: str, purpose: int, episode: str, clock: str) -> str:
    return f"{name} = block(key, i, {episode}, {clock}, wp.uint64({purpose}))"


def _uniforms(block: str, count: int) -> list[str]:
    return [f"uniform({block}, wp.uint64({k}))" for k in range(count)]


def _normals(block: str, count: int) -> tuple[list[str], list[str]]:
    """Box–Muller in pairs: statements, and the sources of `count` standard normal numbers."""
    lines, names = [], []
    for pair in range((count + 1) // 2):
        lines.append(f"{block}_r{pair} = radius({block}, wp.uint64({2 * pair}))")
        lines.append(f"{block}_a{pair} = angle({block}, wp.uint64({2 * pair + 1}))")
        names += [f"{block}_r{pair} * wp.cos({block}_a{pair})", f"{block}_r{pair} * wp.sin({block}_a{pair})"]
    return lines, names[:count]


# --- environments --------------------------------------------------------------------------------------------------------


def constrained(problem: Problem) -> bool:
    """Whether there is anything to keep besides the bounds of the controls: path constraints or bounds of the state."""
    bounded = np.isfinite(problem.state_low).any() or np.isfinite(problem.state_high).any()
    return bool(bounded) or problem.path_constraint_function is not None


def violation_function(problem: Problem) -> ca.Function:
    """(x, u, p, t, x_next) → the largest violation of a step, 0 where all is kept: c(x, u, p, t) at its start; the bounds, and c without
    controls again, at its end."""
    sizes = {"x": problem.n_x, "u": problem.n_u, "p": problem.n_p, "t": 1, "x_next": problem.n_x}
    symbols = {name: ca.SX.sym(name, size) for name, size in sizes.items()}
    after, worst = symbols["x_next"], ca.SX(0)
    excess = [after[j] - high for j, high in enumerate(problem.state_high) if np.isfinite(high)]
    excess += [low - after[j] for j, low in enumerate(problem.state_low) if np.isfinite(low)]
    if problem.path_constraint_function is not None:
        path = problem.path_constraint_function(*(symbols[name] for name in ("x", "u", "p", "t")))
        excess += ca.vertsplit(ca.densify(path))
    if problem.last_constraint_function is not None:
        excess += ca.vertsplit(problem.last_constraint_function(after, symbols["p"], symbols["t"] + problem.dt))
    for value in excess:
        worst = ca.fmax(worst, value)
    return ca.Function("violation", list(symbols.values()), [worst], list(symbols), ["violation"])


class EnvironmentSource:
    """The source of one environment's kernels (see `VectorEnv` for what they do)."""

    def __init__(self, problem: Problem, target: Target, *, shared_params: bool, randomize: bool) -> None:
        self.problem, self.target, self.shared_params, self.randomize = problem, target, shared_params, randomize
        self.dynamics = build_program(problem.step_function)
        self.observation = build_program(problem.observation_function)
        self.terminal = build_program(problem.terminal_cost_function)
        self.diffusion = None if problem.diffusion_function is None else build_program(problem.diffusion_function)
        self.violation = None if not constrained(problem) else build_program(violation_function(problem))
        self.pays_terminal = problem.horizon == "finite" and problem.terminal_cost is not None

    def source(self) -> str:
        """The module with `reset` and, on a GPU, `step`; on a CPU with `finish`."""
        programs = [self.dynamics, self.observation, self.terminal, *filter(None, [self.diffusion, self.violation])]
        functions = _INTEGERS + random_functions(self.target)
        return self._head(programs) + functions + "\n\n".join((self._step(), self._reset()))

    def _head(self, programs: Sequence[Program]) -> str:
        title = titled(f"environment {self.problem.name}, {self.target.dtype}")
        return title + HEADER.format(flags=FLAGS, dtype=self.target.dtype) + helpers(programs, self.target)

    @property
    def operations(self) -> int:
        """Arithmetic operations of a step, roughly."""
        return self.dynamics.operations + self.observation.operations + 20 * self.problem.n_w + 20

    # --- pieces: each returns statements and the names they define ---

    def _number(self, value: float) -> str:
        return constant(float(value), self.target)

    def _arrays(self, *names: str) -> list[str]:
        return [f"{name}: wp.array(dtype=wp.{self.target.dtype})" for name in names]

    def _load(self, prefix: str, array: str, size: int) -> tuple[list[str], list[str]]:
        names = [f"{prefix}{j}" for j in range(size)]
        return [f"{name} = get({array}, i, {size}, {j})" for j, name in enumerate(names)], names

    def _store(self, array: str, values: list[str]) -> list[str]:
        return [f"put({array}, i, {len(values)}, {j}, {value})" for j, value in enumerate(values)]

    def _parameters(self, prefix: str) -> tuple[list[str], list[str]]:
        names, n = [f"{prefix}{j}" for j in range(self.problem.n_p)], self.problem.n_p
        if self.shared_params:
            return [f"{name} = param[{j}]" for j, name in enumerate(names)], names
        return self._load(prefix, "param", n)

    def _control(self, actions: list[str]) -> tuple[list[str], list[str]]:
        """Actions in [−1, 1] (clipped; NaN stays NaN) → controls."""
        low, high = self.problem.action_low, self.problem.action_high
        lines, names = [], []
        for j in range(self.problem.n_u):
            one, minus = self._number(1.0), self._number(-1.0)
            lines += [
                f"a{j} = {actions[j]}",
                f"b{j} = wp.where(a{j} < {minus}, {minus}, wp.where(a{j} > {one}, {one}, a{j}))",
            ]
            half, middle = 0.5 * (high[j] - low[j]), 0.5 * (high[j] + low[j])
            shift = "" if middle == 0.0 else f" + {self._number(middle)}"
            lines.append(f"u{j} = b{j} * {self._number(half)}{shift}")
            names.append(f"u{j}")
        return lines, names

    def _advance(self, x: list[str], u: list[str], p: list[str]) -> tuple[list[str], list[str], str]:
        """One control interval with process noise: statements, next state, cost. Reads `clock_i`, `t`."""
        arguments = {"x": x, "u": u, "p": p, "t": ["t"]}
        lines, out = emit(self.dynamics, arguments, "d", self.target)
        after, cost = out["x_next"], out["cost"][0]
        if self.diffusion is not None:
            n_x, n_w = self.problem.n_x, self.problem.n_w
            more, diffusion = emit(self.diffusion, arguments, "g", self.target)
            (entries,) = diffusion.values()
            lines += [*more, _block("noise", PROCESS_NOISE, "episode_i", "clock_i")]
            draws, normals = _normals("noise", n_w)
            lines += draws + [f"w{k} = {normal}" for k, normal in enumerate(normals)]
            scale = self._number(1.0 if self.problem.discrete else np.sqrt(self.problem.dt))
            for j in range(n_x):
                kicks = " + ".join(f"{entries[j + n_x * k]} * w{k}" for k in range(n_w))
                lines.append(f"n{j} = {after[j]} + {scale} * ({kicks})")
            after = [f"n{j}" for j in range(n_x)]
        return lines, after, cost

    def _observe(self, x: list[str], p: list[str], t: str, prefix: str, episode: str, clock: str):
        """Observation with its noise: statements and names."""
        lines, out = emit(self.observation, {"x": x, "p": p, "t": [t]}, prefix, self.target)
        values, std = out["y"], self.problem.noise_std
        noisy = [j for j in range(len(values)) if std[j] > 0]
        if noisy:
            lines.append(_block(f"{prefix}z", OBSERVATION_NOISE, episode, clock))
            draws, normals = _normals(f"{prefix}z", len(values))
            lines += draws + [f"{prefix}n{j} = {values[j]} + {self._number(std[j])} * ({normals[j]})" for j in noisy]
            values = [f"{prefix}n{j}" if j in noisy else value for j, value in enumerate(values)]
        return lines, values

    def _draw_state(self, episode: str) -> tuple[list[str], list[str]]:
        initial = self.problem.initial_state
        random = [j for j in range(self.problem.n_x) if initial.spread[j] != 0]
        names = [f"s{j}" for j in range(self.problem.n_x)]
        lines = [_block("start", INITIAL_STATE, episode, "wp.int32(0)")] if random else []
        draws = _uniforms("start", len(names))
        if initial.kind == "normal" and random:
            more, draws = _normals("start", len(names))
            lines += more
        for j, name in enumerate(names):
            value = self._number(initial.location[j])
            lines.append(
                f"{name} = {value} + {self._number(initial.spread[j])} * ({draws[j]})"
                if j in random
                else f"{name} = {value}"
            )
        return lines, names

    def _draw_parameters(self, episode: str) -> tuple[list[str], list[str]]:
        low, high = self.problem.param_low, self.problem.param_high
        names = [f"q{j}" for j in range(self.problem.n_p)]
        draws = _uniforms("plant", len(names))
        lines = [_block("plant", PARAMETERS, episode, "wp.int32(0)")]
        for j, name in enumerate(names):
            lines.append(f"{name} = {self._number(low[j])} + {self._number(high[j] - low[j])} * {draws[j]}")
        return [*lines, *self._store("param", names)], names

    def _begin(self, p: list[str]) -> list[str]:
        """A fresh episode number `new_episode`: state, parameters, clock and observation, all stored."""
        lines, x = self._draw_state("new_episode")
        if self.randomize:
            more, p = self._draw_parameters("new_episode")
            lines += more
        more, y = self._observe(x, p, self._number(0.0), "o", "new_episode", "wp.int32(0)")
        return [
            *lines,
            *more,
            "put_int(episode, i, new_episode)",
            "put_int(clock, i, wp.int32(0))",
            *self._store("state", x),
            *self._store("obs", y),
        ]

    # --- kernels ---

    def _step_arguments(self) -> list[str]:
        flag = "terminated" if self.problem.horizon == "finite" else "truncated"
        return [
            *self._arrays("action", "state", "param"),
            "clock: wp.array(dtype=wp.int32)",
            "episode: wp.array(dtype=wp.int32)",
            "keys: wp.array(dtype=wp.uint64)",
            *self._arrays("obs", "final_obs", "reward", *(["cost"] if self.violation else [])),
            f"{flag}: wp.array(dtype=wp.bool)",
            "steps: wp.int64",
            "num: wp.int64",
            "offset: wp.int64",
        ]

    def _advancing(self) -> list[str]:
        """One interval for environment i, as if no episode ended; free of branches, so that it is vectorised."""
        problem = self.problem
        flag = "terminated" if problem.horizon == "finite" else "truncated"
        dt, real = self._number(problem.dt), f"wp.{self.target.dtype}"
        load_x, x = self._load("x", "state", problem.n_x)
        load_p, p = self._parameters("p")
        scale_u, u = self._control([f"get(action, i, {problem.n_u}, {j})" for j in range(problem.n_u)])
        advance, after, cost = self._advance(x, u, p)
        observe, y = self._observe(after, p, "t_next", "y", "episode_i", "clock_next")
        noisy = problem.n_w > 0 or bool(problem.noise_std.any())
        violated: list[str] = []
        if self.violation is not None:
            arguments = {"x": x, "u": u, "p": p, "t": ["t"], "x_next": after}
            violated, out = emit(self.violation, arguments, "v", self.target)
            violated += self._store("cost", out["violation"])
        return [
            "clock_i = get_int(clock, i)",
            f"t = {real}(clock_i) * {dt}",
            *(["episode_i = get_int(episode, i)", "key = keys[0]"] if noisy else []),
            *load_x,
            *load_p,
            *scale_u,
            *advance,
            "clock_next = clock_i + wp.int32(1)",
            f"t_next = {real}(clock_next) * {dt}",
            *observe,
            *self._store("state", after),
            *self._store("obs", y),
            *self._store("reward", [f"-{cost}"]),
            *violated,
            "put_int(clock, i, clock_next)",
            f"put_flag({flag}, i, clock_next >= wp.int32(steps))",
        ]

    def _finishing(self) -> list[str]:
        """The final observation; and where the episode has ended, the terminal cost and the beginning of the next one."""
        problem = self.problem
        flag = "terminated" if problem.horizon == "finite" else "truncated"
        lines, p = self._parameters("c")
        if self.pays_terminal:
            load, x = self._load("z", "state", problem.n_x)
            t_end = f"wp.{self.target.dtype}(steps) * {self._number(problem.dt)}"
            pay, out = emit(self.terminal, {"x": x, "p": p, "t": ["t_end"]}, "e", self.target)
            lines += [
                *load,
                f"t_end = {t_end}",
                *pay,
                *self._store("reward", [f"get(reward, i, 1, 0) - {out['terminal_cost'][0]}"]),
            ]
        lines += ["key = keys[0]", "new_episode = get_int(episode, i) + wp.int32(1)", *self._begin(p)]
        load_y, y = self._load("f", "obs", problem.n_y)
        keep = [*load_y, *self._store("final_obs", y)]
        return [*keep, f"if get_flag({flag}, i):", "    rarely()", *(f"    {line}" for line in lines)]

    def _step(self) -> str:
        """On a GPU `step`; on a CPU `finish`, which follows the step over tiles whenever an episode may have ended."""
        start, arguments = "i = index(wp.tid(), offset)", self._step_arguments()
        if self.target.device == "cuda":
            return kernel("step", arguments, [start, *self._advancing(), *self._finishing()])
        return kernel("finish", arguments, [start, *self._finishing()])

    def _reset(self) -> str:
        """Where `mask` is set: the next episode, from the given state where there is one. Everywhere: the observation."""
        problem = self.problem
        arguments = [
            "mask: wp.array(dtype=wp.bool)",
            *self._arrays("given_state"),
            "use_given_state: wp.int64",
            "redraw_params: wp.int64",
            *self._arrays("state", "param"),
            "clock: wp.array(dtype=wp.int32)",
            "episode: wp.array(dtype=wp.int32)",
            "keys: wp.array(dtype=wp.uint64)",
            *self._arrays("obs"),
            "offset: wp.int64",
        ]
        draw, fresh = self._draw_state("new_episode")
        load_given, given = self._load("given", "given_state", problem.n_x)
        load_p, p = self._parameters("p")
        chosen = ["new_episode = get_int(episode, i) + wp.int32(1)", *draw, *self._store("state", fresh)]
        if self.randomize:
            draw_p, _ = self._draw_parameters("new_episode")
            chosen += ["if redraw_params != wp.int64(0):", *(f"    {line}" for line in draw_p)]
        chosen += [
            "if use_given_state != wp.int64(0):",
            *(f"    {line}" for line in [*load_given, *self._store("state", given)]),
            "put_int(episode, i, new_episode)",
            "put_int(clock, i, wp.int32(0))",
        ]
        load_x, x = self._load("x", "state", problem.n_x)
        observe, y = self._observe(x, p, "t", "y", "episode_i", "clock_i")
        body = [
            "i = index(wp.tid(), offset)",
            "key = keys[0]",
            "if get_flag(mask, i):",
            *(f"    {line}" for line in chosen),
            "episode_i = get_int(episode, i)",
            "clock_i = get_int(clock, i)",
            f"t = wp.{self.target.dtype}(clock_i) * {self._number(problem.dt)}",
            *load_x,
            *load_p,
            *observe,
            *self._store("obs", y),
        ]
        return kernel("reset", arguments, body)

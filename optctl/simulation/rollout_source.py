"""Source of the fused rollouts: many steps of a batch in one launch (see `cpp_source` for the form of the kernels).

`EnvironmentRollout` advances environments as `VectorEnv.step` does, under given actions, random ones, or a network evaluated on the
spot. `forward_source` and `backward_source` are a rollout of the bare step function and its adjoint.

Random actions: draw j at clock c of an episode is a hash of (two words of the episode's own, c n_u + j), the finaliser of
MurmurHash3 (Appleby, 2011) applied twice: 32-bit arithmetic, which every vector unit has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from optctl.codegen.cpp_source import each, expression, functions, loop, module, statements, tile_width, vector_lanes
from optctl.codegen.warp_source import constant, emit
from optctl.simulation.environment_source import EnvironmentSource, random_functions

_ACTION_SALT = "wp::uint64(0xA5A5F00DC0FFEE11)"
_GROUP = 8
"""Units of a layer computed together: that many sums in registers for each value that is read."""


@dataclass(frozen=True)
class ActionSource:
    """Where the actions of a rollout come from: "given", "random", or a "network" of the observation.

    A network's layers have widths (n_y, hidden…, n_u), one activation between them and, where `squash` is set, tanh at the end.
    """

    kind: str
    widths: tuple[int, ...] = ()
    activation: str = "tanh"
    squash: bool = False

    @property
    def operations(self) -> int:
        """Arithmetic operations of one evaluation, roughly: a multiply-add counts as two."""
        hidden = self.widths[1:-1]
        return sum(2 * n * m for n, m in pairwise(self.widths)) + 15 * sum(hidden) + 10 * (self.kind == "random")


def _scramble() -> list[str]:
    return [
        "auto scramble = [](wp::uint32 h) {",
        "h = (h ^ (h >> 16)) * 0x85EBCA6Bu; h = (h ^ (h >> 13)) * 0xC2B2AE35u; return h ^ (h >> 16); };",
    ]


class EnvironmentRollout(EnvironmentSource):
    """The kernels of one environment that work on tiles: `rollout`, on a CPU `step`, and `bare`."""

    def step_source(self) -> str:
        """The module of the public step, as if no episode ended: rows are filled, advanced by a vectorised loop, and written back.

        (Over the arrays themselves, LLVM vectorises short programs only: with every row it must check for overlaps.)
        """
        problem, target = self.problem, self.target
        n_x, n_u, n_p, n_y = problem.n_x, problem.n_u, problem.n_p, problem.n_y
        self.width = tile_width(2 * n_x + n_u + n_y + 5 + (0 if self.shared_params else n_p), target)
        flag = "terminated" if problem.horizon == "finite" else "truncated"
        arguments = dict(argument.split(": ") for argument in self._step_arguments())
        del arguments["offset"]
        control, u = self._control([f"actions[{j}][lane]" for j in range(n_u)])
        advance, after, cost = self._advance(self._states(), u, self._params())
        observe, y = self._observe(after, self._params(), "t_next", "y", "episode_i", "clock_next")
        results = {"x": after, "seen": y, "paid": [f"-{cost}"]}
        violated: list[str] = []
        if self.violation is not None:
            point = {"x": self._states(), "u": u, "p": self._params(), "t": ["t"], "x_next": after}
            violated, out = emit(self.violation, point, "v", target)
            results["broken"] = out["violation"]
        arrays = {"x": "state", "seen": "obs", "paid": "reward", "broken": "cost"}
        write = [
            f"{arrays[row]}.data[i * {len(values)} + {j}] = {row}[{j}][lane];"
            for row, values in results.items()
            for j in range(len(values))
        ]
        fill = [f"actions[{j}][lane] = action.data[i * {n_u} + {j}];" for j in range(n_u)]
        body = [
            *functions(random_functions(target)),
            "const wp::uint64 key = keys.data[0];",
            *self._parameter_rows(),
            f"REAL actions[{n_u}][{self.width}], {', '.join(f'{row}[{len(values)}][{self.width}]' for row, values in results.items())};",
            f"wp::int32 begun[{self.width}], episodes[{self.width}];",
            *each([*self._load_lane(), *fill, "begun[lane] = clock.data[i]; episodes[lane] = episode.data[i];"]),
            *loop(
                [
                    "const wp::int32 clock_i = begun[lane], episode_i = episodes[lane], clock_next = clock_i + 1;",
                    *self._time(),
                    f"const REAL t_next = REAL(clock_next) * {self._cpp(problem.dt)};",
                    *self._read_rows(),
                    *statements([*control, *advance, *observe, *violated]),
                    *(
                        f"{row}[{j}][lane] = {expression(v)};"
                        for row, values in results.items()
                        for j, v in enumerate(values)
                    ),
                ]
            ),
            *each([*write, f"clock.data[i] = begun[lane] + 1; {flag}.data[i] = begun[lane] + 1 >= steps;"]),
        ]
        programs = [p for p in (self.dynamics, self.observation, self.diffusion, self.violation) if p is not None]
        return module("step", f"step of {problem.name}, {target.dtype}", arguments, programs, body, self.width, target)

    def bare_source(self) -> str:
        """The module of `bare`: dynamics and cost alone under given controls, in place: the yardstick of the public step."""
        n_x, n_u = self.problem.n_x, self.problem.n_u
        self.width = tile_width(n_x + n_u + 1 + (0 if self.shared_params else self.problem.n_p), self.target)
        array = f"wp.array(dtype=wp.{self.target.dtype})"
        arguments = dict.fromkeys(("control", "state", "param", "reward"), array) | {"num": "wp.int64"}
        u = [f"u{j}" for j in range(n_u)]
        point = {"x": self._states(), "u": u, "p": self._params(), "t": [constant(0.0, self.target)]}
        lines, out = emit(self.dynamics, point, "d", self.target)
        body = [
            *self._parameter_rows(),
            f"REAL x[{n_x}][{self.width}], u[{n_u}][{self.width}], paid[{self.width}];",
            *each([*self._load_lane(), *(f"u[{j}][lane] = control.data[i * {n_u} + {j}];" for j in range(n_u))]),
            *loop(
                [
                    *self._read_rows(),
                    *(f"const REAL u{j} = u[{j}][lane];" for j in range(n_u)),
                    *statements(lines),
                    *(f"x[{j}][lane] = {expression(v)};" for j, v in enumerate(out["x_next"])),
                    f"paid[lane] = -{expression(out['cost'][0])};",
                ]
            ),
            *each(
                [*(f"state.data[i * {n_x} + {j}] = x[{j}][lane];" for j in range(n_x)), "reward.data[i] = paid[lane];"]
            ),
        ]
        title = f"bare step of {self.problem.name}, {self.target.dtype}"
        return module("bare", title, arguments, [self.dynamics], body, self.width, self.target)

    def rollout_source(self, actions: ActionSource, *, record: bool) -> str:
        """The module. With `record` every action taken is written to `taken`."""
        problem, target = self.problem, self.target
        rows = problem.n_x + 4 + (0 if self.shared_params else problem.n_p) + 2 * max(actions.widths, default=0)
        self.width = tile_width(rows, target)
        array = f"wp.array(dtype=wp.{target.dtype})"
        arguments = {
            **dict.fromkeys(("action", "weights", "state", "param"), array),
            "clock": "wp.array(dtype=wp.int32)",
            "episode": "wp.array(dtype=wp.int32)",
            "keys": "wp.array(dtype=wp.uint64)",
            **dict.fromkeys(("obs", "states", "rewards", "taken"), array),
            **dict.fromkeys(("num", "steps", "limit", "every"), "wp.int64"),
        }
        programs = [self.dynamics, self.observation, self.terminal, *([self.diffusion] if self.diffusion else [])]
        body = [
            *functions(random_functions(target)),
            *_scramble(),
            *self._begin_tile(actions),
            "wp::int64 done = 0;",
            "while (done < steps) {",
            "wp::int64 run = steps - done < every - done % every ? steps - done : every - done % every;",
            *each(["if (limit - begun[lane] < run) run = limit - begun[lane];"]),
            "for (wp::int32 k = 0; k < run; ++k) {",
            *self._network_lines(actions),
            *self._step_lines(actions, record),
            "}",
            "done += run;",
            *self._finish_lines(actions),
            "}",
            *self._end_tile(),
        ]
        also = ["vector_tanh"] if target.vectorised else []
        title = f"rollout of {problem.name}, actions {actions.kind}, {target.dtype}"
        return module("rollout", title, arguments, programs, body, self.width, target, also)

    # --- before and after the steps ---

    def _begin_tile(self, actions: ActionSource) -> list[str]:
        n_x, width = self.problem.n_x, self.width
        lines = [
            f"alignas(64) REAL x[{n_x}][{width}], total[{width}];",
            f"wp::int32 begun[{width}], episodes[{width}];",
            "const wp::uint64 key = keys.data[0];",
        ]
        lines += self._parameter_rows()
        if actions.kind == "random":
            lines.append(f"wp::uint32 high[{width}], low[{width}];")
        if actions.kind == "network":
            lines.append(f"alignas(64) REAL layers[2][{max(actions.widths)}][{width}] = {{}};")
        begin = [*self._load_lane(), "total[lane] = 0;", "begun[lane] = clock.data[i];"]
        return [*lines, *self._enter_episode(actions), *each([*begin, "enter(i, lane);"])]

    def _parameter_rows(self) -> list[str]:
        n_p = self.problem.n_p
        if self.shared_params:
            return [f"const REAL p{j} = param.data[{j}];" for j in range(n_p)]
        return [f"REAL p[{n_p}][{self.width}];"] if n_p else []

    def _load_lane(self) -> list[str]:
        n_x, n_p = self.problem.n_x, self.problem.n_p
        lines = [f"x[{j}][lane] = state.data[i * {n_x} + {j}];" for j in range(n_x)]
        return lines + [f"p[{j}][lane] = param.data[i * {n_p} + {j}];" for j in range(0 if self.shared_params else n_p)]

    def _enter_episode(self, actions: ActionSource) -> list[str]:
        """`enter(i, lane)`: what an episode fixes for its random numbers."""
        lines = ["auto enter = [&](wp::int64 i, wp::int32 lane) {", "episodes[lane] = episode.data[i];"]
        if actions.kind == "random":
            lines += [
                f"const wp::uint64 words = block(key ^ {_ACTION_SALT}, i, episodes[lane], 0, 0);",
                "high[lane] = wp::uint32(words >> 32); low[lane] = wp::uint32(words);",
            ]
        return [*lines, "};"]

    def _end_tile(self) -> list[str]:
        n_x = self.problem.n_x
        observe, y = self._observe(self._states(), self._params(), "t", "y", "episode_i", "clock_i")
        lines = [
            "const wp::int32 clock_i = begun[lane], episode_i = episodes[lane];",
            *self._time(),
            *self._read_rows(),
            *statements(observe),
            *(f"obs.data[i * {len(y)} + {j}] = {expression(value)};" for j, value in enumerate(y)),
            *(f"state.data[i * {n_x} + {j}] = x{j};" for j in range(n_x)),
            "clock.data[i] = clock_i;",
        ]
        return each(lines)

    def _finish_lines(self, actions: ActionSource) -> list[str]:
        """Clocks; the terminal cost; what is saved; and the episodes that begin."""
        n_x = self.problem.n_x
        ended = "if (begun[lane] >= limit) {"
        pay: list[str] = []
        if self.pays_terminal:
            t_end = f"const REAL t_end = REAL(limit) * {self._cpp(self.problem.dt)};"
            lines, out = emit(
                self.terminal, {"x": self._states(), "p": self._params(), "t": ["t_end"]}, "e", self.target
            )
            cost = expression(out["terminal_cost"][0])
            pay = [ended, t_end, *self._read_rows(), *statements(lines), f"total[lane] -= {cost};", "}"]
        row = "(done / every - 1) * num + i"
        save = [
            *(f"states.data[({row}) * {n_x} + {j}] = x[{j}][lane];" for j in range(n_x)),
            f"rewards.data[{row}] = total[lane];",
            "total[lane] = 0;",
        ]
        params = [] if self.shared_params else [f"const REAL p{j} = p[{j}][lane];" for j in range(self.problem.n_p)]
        begin = [
            ended,
            "const wp::int32 new_episode = episodes[lane] + 1;",
            *params,
            *statements(self._begin(self._params())),
            "begun[lane] = 0;",
            *self._load_lane(),
            "enter(i, lane);",
            "}",
        ]
        return [*each(["begun[lane] += run;", *pay]), "if (done % every == 0) {", *each(save), "}", *each(begin)]

    # --- one step ---

    def _cpp(self, value: float) -> str:
        return expression(constant(float(value), self.target))

    def _states(self) -> list[str]:
        return [f"x{j}" for j in range(self.problem.n_x)]

    def _params(self) -> list[str]:
        return [f"p{j}" for j in range(self.problem.n_p)]

    def _read_rows(self) -> list[str]:
        lines = [f"const REAL x{j} = x[{j}][lane];" for j in range(self.problem.n_x)]
        own = 0 if self.shared_params else self.problem.n_p
        return lines + [f"const REAL p{j} = p[{j}][lane];" for j in range(own)]

    def _time(self) -> list[str]:
        return [f"const REAL t = REAL(clock_i) * {self._cpp(self.problem.dt)};"]

    def _now(self) -> list[str]:
        return [
            "const wp::int32 clock_i = begun[lane] + k, episode_i = episodes[lane];",
            *self._time(),
            *self._read_rows(),
        ]

    def _step_lines(self, actions: ActionSource, record: bool) -> list[str]:
        problem = self.problem
        n_u = problem.n_u
        read = {
            "given": [f"action.data[((done + k) * num + i) * {n_u} + {j}]" for j in range(n_u)],
            "random": [f"draw(clock_i * {n_u} + {j})" for j in range(n_u)],
            "network": [f"layers[{(len(actions.widths) - 1) % 2}][{j}][lane]" for j in range(n_u)],
        }[actions.kind]
        draw = []
        if actions.kind == "random":
            scaled = (
                "REAL(h >> 8) * REAL(1.1920928955078125e-07)"
                if self.target.dtype == "float32"
                else "h * 4.656612873077393e-10"
            )
            draw = [
                "auto draw = [&](wp::int32 n) {",
                "const wp::uint32 h = scramble(scramble(high[lane] + n * 0x9E3779B9u) ^ low[lane]);",
                f"return {scaled} - REAL(1.0); }};",
            ]
        control, u = self._control(read)
        advance, after, cost = self._advance(self._states(), u, self._params())
        keep = [f"taken.data[((done + k) * num + i) * {n_u} + {j}] = a{j};" for j in range(n_u)] if record else []
        return loop(
            [
                *self._now(),
                *draw,
                *statements([*control, *advance]),
                *keep,
                *(f"x[{j}][lane] = {expression(value)};" for j, value in enumerate(after)),
                f"total[lane] -= {expression(cost)};",
            ]
        )

    # --- a network, layer by layer over the tile ---

    def _network_lines(self, actions: ActionSource) -> list[str]:
        if actions.kind != "network":
            return []
        observe, y = self._observe(self._states(), self._params(), "t", "y", "episode_i", "clock_i")
        store = [f"layers[0][{j}][lane] = {expression(value)};" for j, value in enumerate(y)]
        lines = loop([*self._now(), *statements(observe), *store])
        offset = 0
        for k, (n, m) in enumerate(pairwise(actions.widths)):
            lines += self._product(k % 2, n, m, offset)
            last = k == len(actions.widths) - 2
            if not last or actions.squash:
                lines += self._activate((k + 1) % 2, m, "tanh" if last else actions.activation)
            offset += (n + 1) * m
        return lines

    def _product(self, source: int, n: int, m: int, offset: int) -> list[str]:
        """layers[1 − source] = bias + weight · layers[source], for n inputs and m units; weights lie input by input."""
        lanes = vector_lanes(self.target)
        group, columns = math.gcd(m, _GROUP), min(2, self.width // lanes)
        kind = "typedef REAL vec;" if lanes == 1 else f"typedef REAL vec __attribute__((ext_vector_type({lanes})));"
        sums = [(g, c) for g in range(group) for c in range(columns)]
        at = lambda layer, row, c: f"*(vec*)&layers[{layer}][{row}][start + {c * lanes}]"
        return [
            "{",
            kind,
            f"for (wp::int32 unit = 0; unit < {m}; unit += {group})",
            f"for (wp::int32 start = 0; start < {self.width}; start += {columns * lanes}) {{",
            *(f"vec s{g}_{c} = (vec)(weights.data[{offset + n * m} + unit + {g}]);" for g, c in sums),
            *(["#pragma unroll"] if lanes == 1 else []),
            f"for (wp::int32 j = 0; j < {n}; ++j) {{",
            *(f"const vec v{c} = {at(source, 'j', c)};" for c in range(columns)),
            *(f"const vec w{g} = (vec)(weights.data[{offset} + j * {m} + unit + {g}]);" for g in range(group)),
            *(f"s{g}_{c} = muladd(w{g}, v{c}, s{g}_{c});" for g, c in sums),
            "}",
            *(f"{at(1 - source, f'unit + {g}', c)} = s{g}_{c};" for g, c in sums),
            "}",
            "}",
        ]

    def _activate(self, layer: int, units: int, activation: str) -> list[str]:
        value = f"layers[{layer}][unit][lane]"
        called = "vector_tanh({0})" if self.target.vectorised and activation == "tanh" else f"wp::{activation}({{0}})"
        if activation == "relu":
            called = "wp::where({0} > REAL(0.0), {0}, REAL(0.0))"
        return [
            f"for (wp::int32 unit = 0; unit < {units}; ++unit) {{",
            *loop([f"{value} = {called.format(value)};"], bound=str(self.width)),
            "}",
        ]


# --- rollouts of the bare step, and their adjoint --------------------------------------------------------------------------

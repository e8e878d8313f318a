"""Source of the kernel that solves one problem per lane: backward sweep, line search and rollout, until all are done.

On a CPU a thread advances LANES problems in lock-step and the inner loop over them is what LLVM vectorises; on a GPU a thread
is one lane. A lane whose problem is finished writes its result and loads the next one, so lanes do not wait for each other.
Lanes never exchange anything: a member's bits depend neither on the batch nor on the number of threads, and a NaN stays where
it is. One round of all lanes is a backward sweep and a trial step; what a lane does with them is decided in `decide` and
`judge`: a lane that must repeat its trial sees its backward sweep recomputed with the same numbers.

Memory: everything of stage k of a lane lies in one record of RECORD rows, so all addresses of a stage differ by constants, and
the vectoriser need not ask at run time whether they overlap. After the records come the lane's scalars. Entry (row, lane) is
at base + row · stride + lane.

The phases: EVALUATE measures costs and gaps of the guess; INTERIOR is the primal-dual barrier method, CLAMPED the projected
Newton method, of `optctl.solvers.methods.ddp`; the merit of a step is J − b Σ log s + ν Σ|d|, with ν so large that closing the gaps always
pays (Nocedal and Wright, Numerical Optimization, 2006, eq. 18.36).
"""

from __future__ import annotations

import re

from optctl.codegen.cpp_source import expression, function, statements, with_numbers
from optctl.codegen.program import build_program
from optctl.codegen.warp_source import FUSED, Target, emit, titled, typed, used_helpers
from optctl.problem import Problem
from optctl.solvers.batched import stages
from optctl.solvers.batched.kernels import text

LANES = 8
"""Problems per thread of a CPU: one 512-bit vector of float64, or two of 256 bits."""

_SCALARS = (
    "member",
    "phase",
    "ending",
    "converged",
    "iterations",
    "rounds",
    "trial",
    "idle",
    "hold",
    "mu",
    "factor",
    "theta",
    "barrier",
    "unit",
    "alpha",
    "margin",
    "evaluate",
    "follow",
    "accepted",
    "cost",
    "logs",
    "gaps",
    "penalty",
    "change0",
    "change1",
    "change2",
    "residual",
    "complement",
    "pivot",
    "cost_new",
    "logs_new",
    "gaps_new",
    "distance",
    "step_low",
    "step_high",
    "start_time",
)


_EXTREMES = [
    "def largest(a: wp.float64, b: wp.float64):\n    return wp.where(a > b, a, wp.where(b >= a, b, a + b))",
    "def smallest(a: wp.float64, b: wp.float64):\n    return wp.where(a < b, a, wp.where(b <= a, b, a + b))",
]  # a NaN stays

TRIGONOMETRY = [
    """def quadrant(x: wp.float64, quarter: wp.float64):
    q = wp.rint(x * REAL(0.6366197723675814))
    r = muladd(-q, REAL(2.0222662487959506e-21), muladd(-q, REAL(6.077100506303966e-11), muladd(-q, REAL(1.5707963267341256), x)))
    r = wp.where(r > ONE, ONE, wp.where(r < -ONE, -ONE, r))
    z = r * r
    s = muladd(z, REAL(1.58969099521155e-10), REAL(-2.5050760253406863e-08))
    s = muladd(z, s, REAL(2.7557313707070068e-06))
    s = muladd(z, s, REAL(-1.9841269829857949e-04))
    s = muladd(z, s, REAL(8.33333333332249e-03))
    s = muladd(z, s, REAL(-0.16666666666666632))
    s = muladd(r * z, s, r)
    c = muladd(z, REAL(-1.1359647557788195e-11), REAL(2.087572321298175e-09))
    c = muladd(z, c, REAL(-2.7557314351390663e-07))
    c = muladd(z, c, REAL(2.480158728947673e-05))
    c = muladd(z, c, REAL(-1.388888888887411e-03))
    c = muladd(z, c, REAL(0.0416666666666666))
    c = muladd(z, muladd(z, c, REAL(-0.5)), ONE)
    n = q + quarter
    n = muladd(REAL(-4.0), wp.floor(n * REAL(0.25)), n)
    y = wp.where(n == ONE or n == REAL(3.0), c, s)
    return wp.where(n >= REAL(2.0), -y, y)""",
    "def vector_sin(x: wp.float64):\n    return quadrant(x, ZERO)",
    "def vector_cos(x: wp.float64):\n    return quadrant(x, ONE)",
]
# Polynomials and the three-part π/2 of FreeBSD's k_sin.c, k_cos.c, e_rem_pio2.c: within one unit in the last place of 1 up to
# |x| = 10⁶, and free of branches.

FLAGS = "-march=native -mprefer-vector-width=512 -mllvm -runtime-memory-check-threshold=256"


LANE_LOOP = """#ifdef __clang__
    #pragma clang loop vectorize(assume_safety) vectorize_width(LANES) interleave(disable) unroll(disable)
    #endif
    for (wp::int64 lane = 0; lane < LANES; ++lane)"""
"""All lanes of a thread: LLVM makes vectors of them; they share no memory. On a GPU a thread is one lane."""


class DdpSource:
    """The source of one problem's kernel, and the number of rows a lane occupies."""

    def __init__(self, problem: Problem, device: str) -> None:
        self.target = Target("float64", device)
        self.lanes = LANES if device == "cpu" else 1
        limits = stages.constraints(problem)
        n_x, n_u, n_p, n_d = problem.n_x, problem.n_u, problem.n_p + limits.n_p, limits.n_stage
        self.limits = limits
        self.name = problem.name
        self.programs = {
            name: build_program(getattr(stages, name)(problem)) for name in ("backward", "forward", "accept", "end")
        }
        fields = {
            "x": n_x,
            "x_new": n_x,
            "u": n_u,
            "u_new": n_u,
            "cost": 1,
            "cost_new": 1,
            "gap": n_x,
            "k": n_u,
            "gain": n_u * n_x,
            "costate": n_x,
            "hessian": n_x * n_x,
            "z_low": n_u,
            "z_high": n_u,
            "data": n_d,
        }
        self.rows, self.record = _places(fields)
        scalars = {"p": n_p, "low": n_u, "high": n_u} | dict.fromkeys((f"scalar_{name}" for name in _SCALARS), 1)
        self.scalar_rows, self.tail = _places(scalars)
        self.sizes = fields | scalars
        self.constants = {"N_X": n_x, "N_U": n_u, "N_P": n_p, "N_D": n_d, "RECORD": self.record, "LANES": self.lanes}
        self.operations = {name: program.operations for name, program in self.programs.items()}

    def work_rows(self, steps: int) -> int:
        """float64 numbers of one lane."""
        return (steps + 1) * self.record + self.tail

    def source(self) -> str:
        """The module, with kernel `solve`."""
        sweeps = {
            "backward": (text("ddp_backward.cpp"), {"end": self._end(), "stage": self._backward()}),
            "forward": (
                text("ddp_forward.cpp"),
                {"start": self._start(), "stage": self._forward(), "end": self._pay()},
            ),
            "accept": (text("ddp_accept.cpp"), {"stage": self._accept()}),
        }
        source = text("ddp_header.warp").replace("<flags>", FLAGS)
        source += "".join(self._native(name, *parts) for name, parts in sweeps.items())
        code = typed(
            self._sized(self._scalars(source + text("ddp_logic.warp").replace("<address>", self._address()))),
            self.target,
        )
        return titled(f"batched DDP of {self.name}, float64") + code

    # --- text ---

    def _native(self, name: str, template: str, blocks: dict[str, list[str]]) -> str:
        """A sweep as a native function: in C++, so that the loop over the lanes is one that LLVM vectorises."""
        cpu = self.target.device == "cpu"
        body = template.replace("<lanes>", LANE_LOOP)
        for block, lines in blocks.items():
            body = body.replace(f"<{block}>", "\n            ".join(lines))
        body = re.sub(r"\$(\w+)", lambda m: f"w[(tail + {self.scalar_rows[f'scalar_{m[1]}']}) * S + lane]", body)
        source = text("ddp_sweep.warp").replace("{name}", name).replace("<stride>", "LANES" if cpu else "stride")
        return source.replace("<helpers>", self._helpers()).replace("<body>", body)

    def _helpers(self) -> str:
        """The functions that programs call, as C++ lambdas."""
        sources = list(used_helpers(list(self.programs.values()), self.target).values()) + _EXTREMES
        fused, trigonometry = (FUSED, TRIGONOMETRY) if self.target.device == "cpu" else ("return a * b + c;", [])
        lines = [f"auto muladd = [](double a, double b, double c) {{{fused}}};"]
        return "\n".join(lines + [function(typed(text, self.target)) for text in sources + trigonometry])

    def _scalars(self, text: str) -> str:
        """`$name` is a scalar of the lane."""

        def row(name: str) -> str:
            return f"tail + wp.int64({self.scalar_rows[f'scalar_{name}']})"

        text = re.sub(
            r"^( *)\$(\w+) = (.*)$",
            lambda m: f"{m[1]}put(work, base, stride, {row(m[2])}, lane, {m[3]})",
            text,
            flags=re.M,
        )
        return re.sub(r"\$(\w+)", lambda m: f"get(work, base, stride, {row(m[1])}, lane)", text)

    def _sized(self, text: str) -> str:
        """Sizes, and the rows of fields as FIELD_ROW."""
        places = {f"{name.upper()}_ROW": at for name, at in (self.rows | self.scalar_rows).items()}
        return with_numbers(text, places | self.constants)

    def _address(self) -> str:
        if self.target.device == "cpu":
            return f"stride = wp.int64(LANES)\n    base = thread * (tail + wp.int64({self.tail})) * wp.int64(LANES)"
        return "stride = threads\n    base = thread"

    def _load(self, field: str, row: str, prefix: str) -> tuple[list[str], list[str]]:
        names = [f"{prefix}{j}" for j in range(self.sizes[field])]
        at = self.rows[field] if field in self.rows else self.scalar_rows[field]
        return [f"const double {n} = w[({row} + {at + j}) * S + lane];" for j, n in enumerate(names)], names

    def _store(self, field: str, row: str, values: list[str]) -> list[str]:
        at = self.rows[field]
        return [f"w[({row} + {at + j}) * S + lane] = {value};" for j, value in enumerate(values)]

    def _emit(
        self,
        name: str,
        where: dict[str, tuple[str, str]],
        prefix: str,
        scalars: tuple[str, ...] = (),
        **known: list[str],
    ) -> tuple[list[str], dict[str, list[str]]]:
        """Load the inputs from (field, row) and the lane's scalars, compute the program: lines and outputs."""
        lines = [f"const double {prefix}_{scalar} = ${scalar};" for scalar in scalars]
        inputs = known | {scalar: [f"{prefix}_{scalar}"] for scalar in scalars}
        for n, (argument, (field, row)) in enumerate(where.items()):
            more, inputs[argument] = self._load(field, row, f"{prefix}i{n}_")
            lines += more
        body, outputs = emit(self.programs[name], inputs, prefix, self.target)
        if self.target.device == "cpu":
            body = [re.sub(r"\bwp\.(sin|cos)\(", r"vector_\1(", line) for line in body]
        outputs = {key: [expression(value) for value in values] for key, values in outputs.items()}
        return lines + statements(body), outputs

    def _limits(self) -> dict[str, tuple[str, str]]:
        return {"p": ("p", "tail"), "low": ("low", "tail"), "high": ("high", "tail")}

    def _end(self) -> list[str]:
        lines, out = self._emit("end", {"x": ("x", "last"), "p": ("p", "tail")}, "e", ("theta",), t=["t"])
        return [
            *lines,
            *self._store("costate", "last", out["gradient"]),
            *self._store("hessian", "last", out["hessian"]),
        ]

    def _pay(self) -> list[str]:
        lines, out = self._emit("end", {"x": ("x_new", "last"), "p": ("p", "tail")}, "e", ("theta",), t=["t"])
        return [*lines, f"$cost_new += {out['cost'][0]};"]

    def _start(self) -> list[str]:
        lines, names = self._load("x", "0", "s")
        return [*lines, *self._store("x_new", "0", names)]

    def _backward(self) -> list[str]:
        after = "row + RECORD"
        where = {"costate": ("costate", after), "hessian": ("hessian", after)}
        where |= {name: (name, "row") for name in ("gap", "x", "u", "z_low", "z_high", "data")} | self._limits()
        lines, out = self._emit("backward", where, "b", ("mu", "theta", "barrier"), t=["t"])
        for field, name in (("costate", "costate_new"), ("hessian", "hessian_new"), ("k", "k"), ("gain", "gain")):
            lines += self._store(field, "row", out[name])
        lines += [f"$change{j} += {value};" for j, value in enumerate(out["change"])]
        lines += [f"${name} = largest(${name}, {out[name][0]});" for name in ("residual", "complement")]
        return [*lines, f"$pivot = smallest($pivot, {out['pivot'][0]});"]

    def _forward(self) -> list[str]:
        after = "row + RECORD"
        where = {"x": ("x_new", "row"), "x_old": ("x", "row"), "x_old_next": ("x", after)}
        where |= {name: (name, "row") for name in ("u", "k", "gain", "gap", "z_low", "z_high", "data")} | self._limits()
        lines, out = self._emit("forward", where, "f", ("alpha", "margin", "barrier", "evaluate", "follow"), t=["t"])
        lines += self._store("x_new", after, out["x_next"]) + self._store("u_new", "row", out["applied"])
        lines += self._store("cost_new", "row", out["cost"]) + self._store("gap", "row", out["gap_new"])
        return [
            *lines,
            f"$cost_new += {out['cost'][0]} + {out['penalty'][0]};",
            f"$gaps_new += {out['gap_size'][0]};",
            f"$distance *= {out['distance'][0]};",
            f"$step_low = smallest($step_low, {out['step_low'][0]});",
            f"$step_high = smallest($step_high, {out['step_high'][0]});",
        ]

    def _accept(self) -> list[str]:
        where = {name: (name, "row") for name in ("u", "z_low", "z_high")} | {"new": ("u_new", "row")} | self._limits()
        where.pop("p")
        lines, out = self._emit("accept", where, "a", ("barrier", "step_low", "step_high"))
        after = "row + RECORD"
        copies = (("u", "u_new", "row"), ("cost", "cost_new", "row"), ("x", "x_new", after))
        for n, (field, new, row) in enumerate(copies):
            load_old, old = self._load(field, row, f"o{n}_")
            load_new, fresh = self._load(new, row, f"n{n}_")
            lines += [*load_old, *load_new]
            lines += self._store(field, row, [f"taken ? {b} : {a}" for a, b in zip(old, fresh, strict=True)])
        load, gaps = self._load("gap", "row", "g")
        lines += [*load, *self._store("gap", "row", [f"{g} * rest" for g in gaps])]
        for z in ("z_low", "z_high"):
            load, old = self._load(z, "row", f"{z}_")
            values = [f"inside ? {a} : {b}" for a, b in zip(out[f"{z}_new"], old, strict=True)]
            lines += [*load, *self._store(z, "row", values)]
        return lines


def _places(sizes: dict[str, int]) -> tuple[dict[str, int], int]:
    """Name → first row, and the number of rows."""
    rows, total = {}, 0
    for name, size in sizes.items():
        rows[name] = total
        total += size
    return rows, total

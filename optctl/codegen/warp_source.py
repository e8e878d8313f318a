"""Straight-line programs as Warp source text, in float32 or float64.

Every operation becomes one assignment. Choices are selects, computed without branches, and a masked value never leaks: where
the condition of `if_else_zero` is false the result is 0 whatever the other side is. A NaN otherwise propagates, also through
`fmin` and `fmax`, where C and CasADi's interpreter would drop it and so hide a broken trajectory.

Functions that Warp lacks (log1p, expm1, the inverse hyperbolic ones, remainder) are written out below; sources: Goldberg,
"What every computer scientist should know about floating-point arithmetic" (1991), Theorem 4 (log1p); Higham, "Accuracy and
Stability of Numerical Algorithms" (2002), section 1.14.1 (expm1).

On a CPU in float32, sin, cos and tanh are written out too: branch-free, so that LLVM evaluates a whole vector of environments at
once, ten times faster than a call of libm for each. sin and cos reduce the angle and evaluate the polynomials of FreeBSD's
`k_sinf.c` and `k_cosf.c` in double: rounded to float32 the error is below 0.51 units in the last place up to |x| = 4·10⁸. Beyond,
where one unit in the last place of x is more than 32 rad, results stay in [−1, 1]. tanh is x times a rational function of x².

There, too, a product that is only added to something becomes one fused multiply-add, here and not by the compiler's choice, so
that every kernel made of a program computes the same bits. In float64, which is for comparisons, nothing is fused: the operations
are CasADi's own, one by one. (CUDA's compiler fuses by itself.)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from optctl.codegen.program import Instruction, Program

GENERATOR_VERSION = 2
"""Part of every cache key: raise it whenever generated source changes its meaning."""


@dataclass(frozen=True)
class Target:
    """What the source is for: a number type, "float32" or "float64", and a device type, "cpu" or "cuda"."""

    dtype: str
    device: str

    @property
    def vectorised(self) -> bool:
        """Whether sin, cos, tanh and fused multiply-adds are written out for the vectoriser."""
        return self.device == "cpu" and self.dtype == "float32"


_DIRECT = (
    {
        "assign": "{0}",
        "lift": "{0}",
        "neg": "-{0}",
        "add": "{0} + {1}",
        "sub": "{0} - {1}",
        "mul": "{0} * {1}",
        "div": "{0} / {1}",
        "sq": "{0} * {0}",
        "twice": "{0} + {0}",
        "inv": "ONE / {0}",
        "lt": "wp.where({0} < {1}, ONE, ZERO)",
        "le": "wp.where({0} <= {1}, ONE, ZERO)",
        "eq": "wp.where({0} == {1}, ONE, ZERO)",
        "ne": "wp.where({0} != {1}, ONE, ZERO)",
        "not": "wp.where({0} == ZERO, ONE, ZERO)",
        "and": "wp.where({0} != ZERO and {1} != ZERO, ONE, ZERO)",
        "or": "wp.where({0} != ZERO or {1} != ZERO, ONE, ZERO)",
        "if_else_zero": "wp.where({0} != ZERO, {1}, ZERO)",
        "fmin": "wp.where({0} < {1}, {0}, wp.where({1} <= {0}, {1}, {0} + {1}))",
        "fmax": "wp.where({0} > {1}, {0}, wp.where({1} >= {0}, {1}, {0} + {1}))",
        "sign": "wp.where({0} > ZERO, ONE, wp.where({0} < ZERO, -ONE, {0}))",
        "fabs": "wp.abs({0})",
        "fmod": "wp.mod({0}, {1})",
        "pow": "wp.pow({0}, {1})",
        "constpow": "wp.pow({0}, {1})",
        "asin": "wp.where(wp.abs({0}) <= ONE, wp.asin({0}), REAL(wp.nan))",  # Warp clips the argument, which would hide a NaN
        "acos": "wp.where(wp.abs({0}) <= ONE, wp.acos({0}), REAL(wp.nan))",
        "log1p": "log1p({0})",
        "expm1": "expm1({0})",
        "asinh": "asinh({0})",
        "acosh": "acosh({0})",
        "atanh": "atanh({0})",
        "hypot": "hypot({0}, {1})",
        "remainder": "remainder({0}, {1})",
    }
    | {
        name: f"wp.{name}({{0}})"
        for name in (
            "exp",
            "log",
            "sqrt",
            "sin",
            "cos",
            "tan",
            "atan",
            "floor",
            "ceil",
            "sinh",
            "cosh",
            "tanh",
            "erf",
            "erfinv",
        )
    }
    | {name: f"wp.{name}({{0}}, {{1}})" for name in ("atan2", "copysign")}
)
"""Operation -> source; ZERO and ONE stand for constants, REAL for the number type."""

_HELPERS = {
    "log1p": (
        (),
        """
def log1p(x: REAL):
    y = ONE + x
    small = wp.where(y == ONE, x, wp.log(y) * (x / (y - ONE)))
    return wp.where(x > REAL(1.0e9), wp.log(x), small)
""",
    ),
    "expm1": (
        (),
        """
def expm1(x: REAL):
    y = wp.exp(x)
    small = wp.where(y == ONE, x, (y - ONE) * (x / wp.log(y)))
    return wp.where(wp.abs(x) < ONE, small, y - ONE)
""",
    ),
    "asinh": (
        ("log1p",),
        """
def asinh(x: REAL):
    a = wp.abs(x)
    small = log1p(a + a * a / (ONE + wp.sqrt(ONE + a * a)))
    return wp.copysign(wp.where(a > REAL(1.0e9), wp.log(a) + REAL(0.6931471805599453), small), x)
""",
    ),
    "acosh": (
        ("log1p",),
        """
def acosh(x: REAL):
    y = x - ONE
    small = log1p(y + wp.sqrt(y + y + y * y))
    return wp.where(x > REAL(1.0e9), wp.log(x) + REAL(0.6931471805599453), small)
""",
    ),
    "atanh": (
        ("log1p",),
        """
def atanh(x: REAL):
    a = wp.abs(x)
    return wp.copysign(REAL(0.5) * log1p((a + a) / (ONE - a)), x)
""",
    ),
    "hypot": (
        (),
        """
def hypot(x: REAL, y: REAL):
    a = wp.abs(x)
    b = wp.abs(y)
    large = wp.where(a > b, a, b)
    ratio = wp.where(a > b, b, a) / large
    scaled = large * wp.sqrt(ONE + ratio * ratio)
    scaled = wp.where(large == ZERO, a + b, scaled)
    return wp.where(a == REAL(wp.inf) or b == REAL(wp.inf), REAL(wp.inf), scaled)
""",
    ),
    "remainder": (
        (),
        """
def remainder(x: REAL, y: REAL):
    a = wp.abs(y)
    r = wp.mod(wp.abs(x), a + a)
    less = r - a
    less = wp.where(less + less >= a, less - a, less)
    r = wp.where(r + r > a, less, r)
    return wp.where(x < ZERO, -r, r)
""",
    ),
    "trigonometric": (
        ("muladd64",),
        """
def trigonometric(x: wp.float64, quarter: wp.float64):
    q = wp.rint(x * wp.float64(0.6366197723675814))
    r = muladd64(q, wp.float64(-1.5893254773528197e-08), muladd64(q, wp.float64(-1.5707963109016418), x))
    r = wp.where(r > wp.float64(1.0), wp.float64(1.0), wp.where(r < wp.float64(-1.0), wp.float64(-1.0), r))
    z = r * r
    s = muladd64(z, wp.float64(2.718311493989822e-06), wp.float64(-0.00019839334836096632))
    s = muladd64(z, s, wp.float64(0.008333329385889463))
    s = muladd64(z, s, wp.float64(-0.16666666641626524))
    s = muladd64(r * z, s, r)
    c = muladd64(z, wp.float64(2.439044879627741e-05), wp.float64(-0.001388676377460993))
    c = muladd64(z, c, wp.float64(0.04166662332373906))
    c = muladd64(z, c, wp.float64(-0.499999997251031))
    c = muladd64(z, c, wp.float64(1.0))
    n = q + quarter
    n = muladd64(wp.float64(-4.0), wp.floor(n * wp.float64(0.25)), n)
    y = wp.where(n == wp.float64(1.0) or n == wp.float64(3.0), c, s)
    return wp.float32(wp.where(n >= wp.float64(2.0), -y, y))
""",
    ),
    "vector_sin": (
        ("muladd64", "trigonometric"),
        """
def vector_sin(x: wp.float32):
    return wp.where(x == ZERO, x, trigonometric(wp.float64(x), wp.float64(0.0)))
""",
    ),
    "vector_cos": (
        ("muladd64", "trigonometric"),
        """
def vector_cos(x: wp.float32):
    return trigonometric(wp.float64(x), wp.float64(1.0))
""",
    ),
    "vector_tanh": (
        ("muladd",),
        """
def vector_tanh(x: wp.float32):
    a = wp.where(x > wp.float32(9.02), wp.float32(9.02), wp.where(x < wp.float32(-9.02), wp.float32(-9.02), x))
    z = a * a
    n = muladd(z, wp.float32(-8.436978736090991e-14), wp.float32(5.258185900580692e-11))
    n = muladd(z, n, wp.float32(-2.018490974364795e-08))
    n = muladd(z, n, wp.float32(1.114451060857391e-05))
    n = muladd(z, n, wp.float32(0.003103027120232582))
    n = muladd(z, n, wp.float32(0.13083180785179138))
    n = muladd(z, n, wp.float32(1.0))
    d = muladd(z, wp.float32(0.0002544787712395191), wp.float32(0.024491485208272934))
    d = muladd(z, d, wp.float32(0.464165061712265))
    d = muladd(z, d, wp.float32(1.0))
    y = a * n / d
    return wp.where(y > ONE, ONE, wp.where(y < -ONE, -ONE, y))
""",
    ),
}
"""Name -> (helpers it calls, source). tanh: own minimax fit of degree (6, 3) on |x| ≤ 9.02, relative error 4·10⁻⁷ in float32."""

FUSED = """
#if defined(__FMA__) || defined(__aarch64__)
return __builtin_elementwise_fma(a, b, c);
#else
return a * b + c;
#endif
"""
"""a b + c with one rounding, where the processor has it."""


def _fused_multiply_add(name: str, dtype: str) -> str:
    arguments = ", ".join(f"{a}: wp.{dtype}" for a in "abc")
    return f'@wp.func_native("""{FUSED}""")\ndef {name}({arguments}) -> wp.{dtype}: ...\n\n\n'


_LARGEST_EXPANDED_POWER = 8


def constant(value: float, target: Target) -> str:
    """A number as source of exactly its value (rounded to float32 where that is the type)."""
    with np.errstate(over="ignore"):  # beyond float32: infinite
        value = float(np.float32(value)) if target.dtype == "float32" else float(value)
    if math.isnan(value):
        text = "wp.nan"
    elif math.isinf(value):
        text = "wp.inf" if value > 0 else "-wp.inf"
    else:
        text = repr(value)
    return f"wp.{target.dtype}({text})"


def titled(title: str) -> str:
    """The first lines of a generated module: its docstring, a literal whatever the title (a problem's name is the user's)."""
    return ascii(f"Generated by optctl: {title}. Do not edit.") + "\n\n"


def typed(source: str, target: Target) -> str:
    """Replace the placeholders REAL, ZERO and ONE."""
    source = source.replace("ZERO", constant(0.0, target)).replace("ONE", constant(1.0, target))
    return source.replace("REAL", f"wp.{target.dtype}")


def used_helpers(programs: Sequence[Program], target: Target, also: Sequence[str] = ()) -> dict[str, str]:
    """Name -> source of the helper functions that the programs call, and of those named in `also`."""
    used = {_call(k.operation, target) for program in programs for k in program.instructions} | set(also)
    wanted = set(used)
    for name in used & _HELPERS.keys():
        wanted |= {*_HELPERS[name][0]}
    return {name: typed(source.strip(), target) for name, (_, source) in _HELPERS.items() if name in wanted}


def helpers(programs: Sequence[Program], target: Target) -> str:
    """The helper functions that the programs call, as source."""
    fused = [_fused_multiply_add("muladd", target.dtype), _fused_multiply_add("muladd64", "float64")]
    parts = [f"@wp.func\n{source}\n\n\n" for source in used_helpers(programs, target).values()]
    return "".join([*(fused if target.vectorised else []), *parts])


def _call(operation: str, target: Target) -> str:
    return f"vector_{operation}" if target.vectorised and operation in ("sin", "cos", "tanh") else operation


def emit(
    program: Program, inputs: Mapping[str, Sequence[str]], prefix: str, target: Target
) -> tuple[list[str], dict[str, list[str]]]:
    """Statements that compute a program, and the names of its results.

    `inputs` gives for each input name the source of its entries. Local variables begin with `prefix`, so that several programs
    live in one kernel.
    """
    names: list[str] = []
    lines: list[str] = []
    fused = _fused(program) if target.vectorised else {}
    absorbed = {product for product, _ in fused.values()}
    for k, instruction in enumerate(program.instructions):
        if instruction.operation == "input":
            j, entry = instruction.arguments
            names.append(inputs[program.input_names[j]][entry])
        elif instruction.operation == "const":
            names.append(constant(instruction.constant, target))
        else:
            names.append(f"{prefix}{k}")
            if k in fused:
                lines.append(f"{names[-1]} = {_multiply_add(instruction, *fused[k], names, program)}")
            elif k not in absorbed:
                lines.append(f"{names[-1]} = {_expression(instruction, names, program, target)}")
    outputs = {
        name: [names[k] for k in entries] for name, entries in zip(program.output_names, program.outputs, strict=True)
    }
    return lines, outputs


def _fused(program: Program) -> dict[int, tuple[int, int]]:
    """Sum -> (product, position) for every sum or difference of which one side is a product that nothing else needs."""
    uses = Counter(entry for entries in program.outputs for entry in entries)
    for instruction in program.instructions:
        if instruction.operation != "input":
            uses.update(instruction.arguments)
    found = {}
    for k, instruction in enumerate(program.instructions):
        if instruction.operation in ("add", "sub"):
            for position in (1, 0):
                product = instruction.arguments[position]
                if program.instructions[product].operation in ("mul", "sq") and uses[product] == 1:
                    found[k] = product, position
                    break
    return found


def _multiply_add(instruction: Instruction, product: int, position: int, names: list[str], program: Program) -> str:
    factors = program.instructions[product].arguments
    a, b = names[factors[0]], names[factors[-1]]
    other = names[instruction.arguments[1 - position]]
    if instruction.operation == "sub":
        a, other = (f"-{a}", other) if position == 1 else (a, f"-{other}")
    return f"muladd({a}, {b}, {other})"


def _expression(instruction: Instruction, names: list[str], program: Program, target: Target) -> str:
    operation, arguments = instruction.operation, [names[a] for a in instruction.arguments]
    if operation in ("pow", "constpow"):
        exponent = program.instructions[instruction.arguments[1]]
        if exponent.operation == "const" and exponent.constant in range(1, _LARGEST_EXPANDED_POWER + 1):
            return _power(arguments[0], int(exponent.constant))
    called = _call(operation, target)
    return f"{called}({arguments[0]})" if called != operation else typed(_DIRECT[operation].format(*arguments), target)


def _power(x: str, n: int) -> str:
    """xⁿ by repeated squaring: x⁵ = ((x x)(x x)) x."""
    if n == 1:
        return x
    half = _power(x, n // 2)
    squared = f"({half}) * ({half})" if n > 3 else f"{half} * {half}"
    return f"{squared} * {x}" if n % 2 else squared

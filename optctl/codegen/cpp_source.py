"""The statements of `warp_source` as C++, for kernels that run many steps at a stretch.

Such a kernel works on a tile of environments: the steps are the outer loop, the environments of the tile the inner one, and what
a step hands to the next stays in local arrays with one row per quantity. On a CPU a tile is some hundred environments wide, the
inner loop is vectorised and the rows stay in the first-level cache; on a GPU a tile is one environment, the inner loop vanishes
and the rows are registers. Warp's own loops (a range object with a run-time sign of its stride) are not vectorised: hence C++.

The arithmetic is the text that the single-step kernels are made of, translated line by line, with contraction switched off (what
is fused is fused in `emit`): on a CPU both compute the same bits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from optctl.codegen.program import Program
from optctl.codegen.warp_source import FUSED, Target, titled, used_helpers

_CACHE_BYTES = 24 * 1024
"""What a tile may fill: half or more of any first-level data cache of the last decade."""
_VECTOR_BYTES = 64

_HEADER = '''import warp as wp

wp.set_module_options({{"enable_backward": False, "cpu_compiler_flags": "{flags}"}})


@wp.func_native(r"""
{body}
""")
def tile(thread: wp.int32, {arguments}): ...


@wp.kernel(enable_backward=False)
def {name}({arguments}):
    tile(wp.tid(), {names})
'''

_PREAMBLE = """
#ifdef __clang__
#pragma clang fp contract(off)
#endif
typedef wp::{dtype} REAL;
auto get = [](const auto& a, wp::int64 i, wp::int32 n, wp::int32 j) {{ return a.data[i * n + j]; }};
auto put = [](auto& a, wp::int64 i, wp::int32 n, wp::int32 j, REAL value) {{ a.data[i * n + j] = value; }};
auto get_int = [](const auto& a, wp::int64 i) {{ return a.data[i]; }};
auto put_int = [](auto& a, wp::int64 i, wp::int32 value) {{ a.data[i] = value; }};
auto muladd = [](auto a, auto b, auto c) {{ {fused} }};
auto muladd64 = muladd;
const wp::int64 tile_index = offset + thread;
const wp::int64 first = tile_index * {width};
const wp::int32 count = num - first < {width} ? num - first : {width};
"""

VECTORISED = "#ifdef __clang__\n#pragma clang loop vectorize(enable)\n#endif"


def tile_width(rows: int, target: Target) -> int:
    """Environments of a tile with so many rows: a power of two from 16 to 256 on a CPU, 1 on a GPU."""
    if target.device == "cuda":
        return 1
    fitting = _CACHE_BYTES // (rows * number_bytes(target))
    return 1 << (min(max(fitting, 16), 256).bit_length() - 1)


def number_bytes(target: Target) -> int:
    """Bytes of a number."""
    return 4 if target.dtype == "float32" else 8


def vector_lanes(target: Target) -> int:
    """Environments that one explicit vector holds."""
    return 1 if target.device == "cuda" else _VECTOR_BYTES // number_bytes(target)


def statements(lines: Iterable[str], defined: Iterable[str] = ()) -> list[str]:
    """Assignments and calls as C++; a name is declared where it is first assigned."""
    known, translated = set(defined), []
    for line in lines:
        text = expression(line.strip())
        name = re.match(r"(\w+) = ", text)
        if name and name[1] not in known:
            known.add(name[1])
            text = f"auto {text}"
        translated.append(f"{text};")
    return translated


def expression(text: str) -> str:
    """An expression as C++."""
    return text.replace("wp.nan", "NAN").replace("wp.inf", "INFINITY").replace("wp.", "wp::")


def function(source: str) -> str:
    """A Python function of plain statements as a C++ lambda."""
    head, *body = source.splitlines()
    name, arguments = re.match(r"def (\w+)\((.*)\):", head).groups()  # type: ignore[union-attr]
    pairs = [argument.split(": ") for argument in arguments.split(", ")]
    typed = ", ".join(f"{expression(kind)} {argument}" for argument, kind in pairs)
    return f"auto {name} = [&]({typed}) {{ {' '.join(statements(body, [a for a, _ in pairs]))} }};"


def functions(source: str) -> list[str]:
    """Every function of a text with nothing but functions and decorators."""
    return [function(part.strip()) for part in source.split("@wp.func\n") if part.strip().startswith("def ")]


def loop(body: Iterable[str], bound: str = "count") -> list[str]:
    """`body` for every environment of the tile: environment `i`, its place `lane`; vectorised on a CPU."""
    head = f"for (wp::int32 lane = 0; lane < {bound}; ++lane) {{"
    return [VECTORISED, head, "const wp::int64 i = first + lane;", *body, "}"]


def each(body: Iterable[str]) -> list[str]:
    """`loop` without the vectoriser: for what rarely happens or only moves data."""
    return loop(body)[1:]


def with_numbers(text: str, numbers: Mapping[str, object]) -> str:
    """The words among `numbers` replaced by their values."""
    for word, value in numbers.items():
        text = re.sub(rf"\b{word}\b", str(value), text)
    return text


def native_module(name: str, title: str, arguments: Mapping[str, str], body: str, flags: str) -> str:
    """A module with the kernel `name`, whose threads run `body` in C++. `arguments`: name -> Warp type; `thread` is added."""
    return titled(title) + _HEADER.format(
        name=name,
        body=body,
        flags=flags,
        names=", ".join(arguments),
        arguments=", ".join(f"{k}: {v}" for k, v in arguments.items()),
    )


def module(
    name: str,
    title: str,
    arguments: Mapping[str, str],
    programs: Sequence[Program],
    body: Iterable[str],
    width: int,
    target: Target,
    also: Sequence[str] = (),
) -> str:
    """A module with the kernel `name`. `arguments`: name -> Warp type; `num` must be one of them, `offset` is added last."""
    types = {**arguments, "offset": "wp.int64"}
    fused = f"\n{FUSED.strip()}\n" if target.device == "cpu" else "return a * b + c;"
    text = [
        _PREAMBLE.format(dtype=target.dtype, width=width, fused=fused).strip(),
        *(function(source) for source in used_helpers(programs, target, also).values()),
        *body,
    ]
    return native_module(name, title, types, "\n".join(text), "-march=native -Wno-pass-failed")

"""`optctl bench envs`: steps per second of the environments, beside the peers and beside what the machine can do.

Two ratios need no peer: the Gymnasium adapter to the public step, and what a call costs beyond a torch addition.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from optctl.bench.record import ON_GPU, ask_peer, check_counts, finish, markdown_table
from optctl.bench.step_rates import LINES, measure, measure_limits
from optctl.envs import lqr, make
from optctl.files import write_atomically
from optctl.problem import Problem

PEERS_OF = "pendulum-v1"
"""The problem that the peers have too."""


def _problems() -> dict[str, Callable[[], Problem]]:
    """The default list: from 28 operations a step to some thousands."""
    return {
        "pendulum-v1": lambda: make("pendulum-v1"),
        "cartpole": lambda: make("cartpole"),
        "lqr-8": lambda: lqr.mass_spring(masses=4).replace(name="lqr-8"),
        "qubit-transfer": lambda: make("qubit-transfer"),
        "exchange-gate": lambda: make("exchange-gate"),
    }


def envs(
    problems: tuple[str, ...] = (),
    num_envs: tuple[int, ...] = (64, 4096, 65536),
    device: str = "cpu",
    dtype: str = "float32",
    seconds: float = 3.0,
    peer_python: Path | None = None,
    out: Path | None = None,
) -> int:
    """Steps per second: bare kernel, public step, Gymnasium, step with a network, rollouts; beside peers and the machine's limit.

    Args:
        problems: Problems of the catalogue (default: Pendulum-v1, cart-pole, an 8-state LQR, a qubit, a 4 × 4 unitary).
        num_envs: Batch sizes.
        device: cpu, cuda or cuda:N.
        dtype: float32 or float64.
        seconds: Time for each problem and batch size.
        peer_python: Interpreter that has the peers (gymnasium, EnvPool, gymnax); without it a GPU has none.
        out: Folder for envs.json and envs.png.
    """
    check_counts(out, **{f"num_envs[{k}]": size for k, size in enumerate(num_envs)})
    known = _problems()
    chosen = {name: known[name]() if name in known else make(name) for name in problems or known}
    limits, measured = measure_limits(device, dtype), []
    for name, problem in chosen.items():
        for size in num_envs:
            peers = ask_peer(peer_python, "envs", size) if name == PEERS_OF and (device == "cpu" or peer_python) else []
            rates = measure(problem, size, device=device, dtype=dtype, seconds=seconds)
            measured.append((name, rates, peers))
            limits |= measure_limits(device, dtype)
            print(
                f"{name}, {size:,}: "
                + ", ".join(f"{label} {_millions(rates.rates[k])}" for k, label in LINES.items())
                + f"; a step {1e6 * rates.step_seconds:.1f} µs, an addition {1e6 * rates.addition_seconds:.1f} µs"
            )
    print(
        f"memory {limits.bytes / 1e9:.1f} GB/s, arithmetic {limits.operations / 1e9:.0f} Gop/s (multiply-adds count as two)"
    )
    rows: list[Sequence[object]] = []
    calls: list[Sequence[object]] = []
    figures: list[dict[str, Any]] = []
    for name, rates, peers in measured:
        fastest = max((peer["steps_per_second"] for peer in peers), default=None)
        bounds = {line: rates.limit(line, limits) for line in LINES}
        figures.append(
            {"problem": name, "num_envs": rates.num_envs, "rates": asdict(rates), "limits": bounds, "peers": peers}
        )
        for line, label in LINES.items():
            rate, (limit, by) = rates.rates[line], bounds[line]
            ratio = f"{rate / fastest:.1f}×" if fastest else ""
            share = f"{rate / limit:.0%} of {by}"
            share_of_step = f"{rate / rates.rates['step']:.2f}"
            rows.append(
                [name, f"{rates.num_envs:,}", label, _millions(rate), _millions(limit), share, share_of_step, ratio]
            )
        rows += [[name, f"{p['num_envs']:,}", p["peer"], _millions(p["steps_per_second"]), *[""] * 4] for p in peers]
        step, addition = 1e6 * rates.step_seconds, 1e6 * rates.addition_seconds
        calls.append([name, f"{rates.num_envs:,}", f"{step:.1f}", f"{addition:.1f}", f"{step - addition:.1f}"])
    header = (
        "problem",
        "environments",
        "what",
        "million steps/s",
        "limit",
        "of the limit",
        "÷ public step",
        "÷ fastest peer",
    )
    table = markdown_table("Environment steps per second", header, rows)
    table += "\n" + markdown_table(
        "A call, in µs", ("problem", "environments", "public step", "torch addition", "difference"), calls
    )
    if out is not None:
        _plot(figures, LINES, out / f"envs{ON_GPU if device != 'cpu' else ''}.png")
    return finish("envs", "optctl bench envs", table, {"limits": asdict(limits), "rows": figures}, out, device)


def _millions(rate: float) -> str:
    return f"{rate / 1e6:,.3g}" if rate < 1e9 else f"{rate / 1e6:,.0f}"


def _plot(figures: list[dict[str, Any]], lines: dict[str, str], out: Path) -> None:
    """One panel per problem: the rate of every line over the batch size, its limit dashed, the peers in grey."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(figure["problem"] for figure in figures))
    figure = Figure(figsize=(4.2 * len(names), 4.6), layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axis, name in zip(axes, names, strict=True):
        points = [f for f in figures if f["problem"] == name]
        sizes = [f["num_envs"] for f in points]
        for k, (line, label) in enumerate(lines.items()):
            axis.plot(sizes, [f["rates"]["rates"][line] for f in points], "o-", color=f"C{k}", label=label)
            axis.plot(sizes, [f["limits"][line][0] for f in points], "--", color=f"C{k}", linewidth=0.8)
        peers = list(dict.fromkeys(p["peer"] for f in points for p in f["peers"]))
        for marker, peer in zip("svd^", peers, strict=False):
            found = sorted(
                {(p["num_envs"], p["steps_per_second"]) for f in points for p in f["peers"] if p["peer"] == peer}
            )
            axis.plot(*zip(*found, strict=True), marker, color="0.5", label=peer)
        axis.set(title=name, xlabel="environments", xscale="log", yscale="log")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("steps/s (dashed: limit)")
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, fontsize=8)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=150)
    write_atomically(out, buffer.getvalue())

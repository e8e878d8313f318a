"""The command line: `optctl list | solve | demos | animate | train | evaluate | compare | demo | bench`.

Options come from the signatures and dataclasses by tyro. A wrong input is one sentence on stderr and exit status 2; a failure of the
machine (a full disk, a read-only folder) is one sentence and 1; Ctrl-C saves what there is and exits with 130.
"""

from __future__ import annotations

import dataclasses
import difflib
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from optctl import __version__
from optctl.errors import ArgumentError, FileError, require


def _say(text: str = "") -> None:
    print(text, flush=True)


def _parse(command: str, function: Callable[..., int], arguments: list[str]) -> int:
    import tyro

    return tyro.cli(function, prog=f"optctl {command}", args=arguments, config=(tyro.conf.PositionalRequiredArgs,))


def _known(value: str, names: Any, what: str) -> None:
    """`value` must be one of `names`, else a sentence that suggests the nearest."""
    names = list(names)
    if value not in names:
        close = difflib.get_close_matches(value, names, n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"choose from {', '.join(names)}."
        raise ArgumentError(f"There is no {what} `{value}`: {hint}")


# --- commands -----------------------------------------------------------------------------------------------------------


def list_command(arguments: list[str]) -> int:
    def catalogue(compile: bool = False) -> int:
        """The catalogue of problems, the agents and the solvers.

        Args:
            compile: Also compile every environment twice, with an empty cache and from it, and print how long each took.
        """
        from rich.console import Console
        from rich.table import Table

        from optctl.agents import AGENTS
        from optctl.envs import CATALOGUE, make
        from optctl.solvers import SOLVERS

        table = Table("problem", "states", "controls", "horizon", "about", title="Problems", title_justify="left")
        for name in CATALOGUE:
            p = make(name)
            table.add_row(name, str(p.n_x), str(p.n_u), f"{p.horizon}, {p.duration:g} s", p.description)
        Console().print(table)
        if compile:
            from optctl.bench.compile_times import compile_times

            _say("Seconds to an environment that runs, with an empty cache and from the cache:")
            for name, cold, cached in compile_times(list(CATALOGUE)):
                _say(f"{name:32} {cold:6.2f} {cached:6.2f}")
        _say(f"Agents:  {', '.join(AGENTS)}\nSolvers: {', '.join(SOLVERS)}")
        return 0

    return _parse("list", catalogue, arguments)


def solve_command(arguments: list[str]) -> int:
    def solve(
        problem: str,
        x0: tuple[float, ...] = (),
        method: str = "auto",
        num_starts: int = 1,
        seed: int = 0,
        out: Path | None = None,
    ) -> int:
        """Solve a problem from --x0 or from random starts; print cost, verdict and certificate.

        Args:
            problem: A problem of the catalogue (see `optctl list`).
            x0: Initial state; without it, starts are drawn from the problem's initial distribution.
            method: A solver's name, or auto.
            num_starts: Random starts to solve, when there is no --x0.
            seed: Seed of the starts and of the multi-start.
            out: Folder for solutions.npz, the trajectories with their costates.
        """
        import numpy as np

        from optctl import solvers
        from optctl.envs import make
        from optctl.problem.controller import check_states

        p = make(problem)
        require(num_starts >= 1, "num_starts", "be at least 1", f"is {num_starts}")
        require(seed >= 0, "seed", "not be negative", f"is {seed}")
        starts = check_states(p, x0) if x0 else p.initial_state.sample(np.random.default_rng(seed), num_starts)
        path = None if out is None else _output_folder(out) / "solutions.npz"
        began = time.perf_counter()
        with _spinner(f"solving {p.name} from {len(starts)} start{'s' if len(starts) > 1 else ''}"):
            if len(starts) == 1:
                solutions: Any = [solvers.solve(p, starts[0], method=method, seed=seed)]
            else:
                solutions = solvers.solve_many(p, starts, method=method, seed=seed)
        for start, solution in zip(starts, solutions, strict=True):
            _say(f"x0 = {np.array2string(start, precision=4)}\n{solution}")
        converged = sum(s.ok for s in solutions)
        mean = np.mean([s.value for s in solutions])
        _say(f"{converged} of {len(solutions)} converged in {time.perf_counter() - began:.2f} s; mean cost {mean:.6g}")
        if path is not None:
            _save_solutions(solutions, path)
        return 0 if converged == len(solutions) else 3

    return _parse("solve", solve, arguments)


def _save_solutions(solutions: Sequence[Any], path: Path) -> None:
    import io

    import numpy as np

    from optctl.files import write_atomically

    fields = ("times", "states", "controls", "costs", "costates")
    arrays = {f"{i}/{f}": getattr(s.trajectory, f) for i, s in enumerate(solutions) for f in fields}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{k: v for k, v in arrays.items() if v is not None})
    write_atomically(path, buffer.getvalue())
    _say(f"written: {path}")


def train_command(arguments: list[str]) -> int:
    from optctl.agents import AGENTS
    from optctl.envs import CATALOGUE

    names = [a for a in arguments[:2] if not a.startswith("-")]
    if len(names) < 2:
        _say(f"usage: optctl train AGENT PROBLEM [OPTIONS]\n\nAgents: {', '.join(AGENTS)}. Problems: {', '.join(CATALOGUE)}.\n"
             "`optctl train AGENT PROBLEM --help` shows the options with the settings for that pair.")  # fmt: skip
        return 0 if {"-h", "--help"} & set(arguments) else 2
    agent, problem = names
    _known(agent, AGENTS, "agent")
    _known(problem, CATALOGUE, "problem")

    from optctl.envs import make
    from optctl.training.run import TrainingRun
    from optctl.training.run import train as run_training
    from optctl.training.settings import settings

    seed, warm = 0, "--warm-start" in arguments
    defaults = settings(agent, make(problem), warm_start=warm)
    if (stored := _resumed(arguments)) is not None:  # what is not said is as it was
        run = TrainingRun.load(stored, make(problem))
        seed, warm = run.seed, run.warm_config is not None
        defaults = dataclasses.replace(
            defaults, agent=run.agent_config if run.name == agent else defaults.agent, loop=run.loop_config, train=run.config,
            warm=run.warm_config or defaults.warm,
        )  # fmt: skip

    def train(settings: Any, warm_start: bool, seed: int, device: str, out: Path | None, resume: bool) -> int:
        """Train an agent on a problem; Ctrl-C saves, --resume continues."""
        folder = None if out is None else _output_folder(out)
        with _TrainingBar(f"{agent} on {problem}") as bar:
            policy = run_training(
                agent, make(problem), warm_start=settings.warm if warm_start else False, agent_config=settings.agent,
                loop_config=settings.loop, config=settings.train, seed=seed, device=device, out=folder, resume=resume,
                progress=bar.update,
            )  # fmt: skip
        run = policy.run
        last = run.curve[-1]
        _say(f"{policy.name} on {problem}: mean cost {last['cost']:.6g} over {len(run.starts)} starts, "
             f"after {last['steps']:,} steps and {run.seconds:.1f} s")  # fmt: skip
        if folder is not None:
            _say(f"written: {folder / 'checkpoint.safetensors'}")
        return 0 if run.finished else 130

    parts = [(f.name, type(getattr(defaults, f.name)), getattr(defaults, f.name)) for f in dataclasses.fields(defaults)]
    options = dataclasses.make_dataclass(
        "Settings", [(name, kind, dataclasses.field(default=value)) for name, kind, value in parts], frozen=True
    )
    import tyro

    arg = tyro.conf.arg
    train.__annotations__ = {
        "settings": Annotated[options, arg(name="")],
        "warm_start": Annotated[bool, arg(help="Begin from optimal trajectories (options warm.*).")],
        "seed": Annotated[int, arg(help="Seed of everything random.")],
        "device": Annotated[str, arg(help="cpu, cuda or cuda:N.")],
        "out": Annotated[Path | None, arg(help="Folder for the checkpoint.")],
        "resume": Annotated[bool, arg(help="Continue the run found in --out.")],
        "return": int,
    }
    train.__defaults__ = (options(), warm and stored is not None, seed, "cpu", None, False)
    return _parse(f"train {agent} {problem}", train, arguments[2:])


def _resumed(arguments: list[str]) -> Path | None:
    """The folder of the run that `optctl train … --out FOLDER --resume` continues; `None` where it begins one."""
    from optctl.training.run import CHECKPOINT

    words = [word for argument in arguments for word in argument.split("=", 1)]
    after = words[words.index("--out") + 1 :] if "--out" in words else []
    known = "--resume" in words and after and (Path(after[0]) / CHECKPOINT).exists()
    return Path(after[0]) if known else None


def evaluate_command(arguments: list[str]) -> int:
    def evaluate(
        checkpoint: Path, num_starts: int = 256, seed: int = 0, reference: bool = True, device: str = "cpu"
    ) -> int:
        """Evaluate a trained policy, with its gap to the optimum.

        Args:
            checkpoint: A checkpoint, or the folder that holds one.
            num_starts: Random starts.
            seed: Seed of the starts.
            reference: Solve every start for the gap; --no-reference gives the cost alone.
            device: cpu, cuda or cuda:N.
        """
        from optctl.comparison.compare import compare
        from optctl.training.run import load_agent

        require(seed >= 0, "seed", "not be negative", f"is {seed}")
        policy = load_agent(checkpoint, device=device)
        with _spinner(f"evaluating {policy.name} on {policy.problem.name}") as spinner:
            comparison = compare(
                policy.problem, [policy], num_starts=num_starts, seed=seed,
                reference="optimal" if reference else None, progress=spinner.tell,
            )  # fmt: skip
        _say(str(comparison))
        return 0

    return _parse("evaluate", evaluate, arguments)


def compare_command(arguments: list[str]) -> int:
    def compare(
        problem: str,
        controllers: tuple[str, ...] = ("optimal", "lqr", "zero", "sac", "sac-warm"),
        seeds: int = 3,
        num_starts: int = 100,
        seed: int = 0,
        device: str = "cpu",
        out: Path | None = None,
    ) -> int:
        """Compare controllers on the same starts and report each with its gap to the optimum.

        Args:
            problem: A problem of the catalogue (see `optctl list`).
            controllers: optimal, lqr, lqg, mpc, zero, random, an agent's name (trained from scratch), AGENT-warm (from
                optimal trajectories), or the path of a checkpoint.
            seeds: Training seeds for each agent.
            num_starts: Random starts.
            seed: Seed of the starts; training uses seed, seed + 1, …
            device: cpu, cuda or cuda:N.
            out: Folder for report.html, pictures and results.json.
        """
        return _compare(problem, controllers, seeds, num_starts, seed, device, out, ["optctl", "compare", *arguments])

    return _parse("compare", compare, arguments)


def demo_command(arguments: list[str]) -> int:
    def demo(problem: str = "pendulum-v1", out: Path = Path("out/demo"), seeds: int = 3) -> int:
        """The main job: one swing-up, its optimum, SAC from scratch and from optimal trajectories, each with its gap.

        Args:
            problem: A problem of the catalogue (see `optctl list`).
            out: Folder for the report.
            seeds: Training seeds for each agent.
        """
        names = ("optimal", "lqr", "zero", "sac", "sac-warm")
        return _compare(problem, names, seeds, 100, 0, "cpu", out, ["optctl", "demo", *arguments])

    return _parse("demo", demo, arguments)


def _compare(
    name: str, controllers: tuple[str, ...], seeds: int, num_starts: int, seed: int, device: str, out: Path | None,
    command: list[str],
) -> int:  # fmt: skip
    import numpy as np

    from optctl.agents import AGENTS
    from optctl.comparison.compare import CONTROLLERS, compare
    from optctl.envs import make
    from optctl.training.run import load_agent, train_named

    problem = make(name)
    require(seeds >= 1, "seeds", "be at least 1", f"is {seeds}")
    require(num_starts >= 1, "num_starts", "be at least 1", f"is {num_starts}")
    require(seed >= 0, "seed", "not be negative", f"is {seed}")
    starts = problem.initial_state.sample(np.random.default_rng(seed), num_starts)
    trained = [agent + suffix for agent in AGENTS for suffix in ("", "-warm")]
    for controller in controllers:
        if not Path(controller).exists():
            _known(controller, dict.fromkeys([*CONTROLLERS, *trained]), "controller")
    folder = None if out is None else _output_folder(out)
    began = time.perf_counter()
    entries: dict[str, Any] = {}
    curves: list[dict[str, Any]] = []
    for controller in controllers:
        if controller in CONTROLLERS and controller not in trained:
            entries[controller] = controller
        elif controller in trained:
            policies = []
            for k in range(seeds):
                with _TrainingBar(f"{controller} on {name}, seed {seed + k}") as bar:
                    policy = train_named(
                        controller, problem, seed=seed + k, device=device, starts=starts, progress=bar.update
                    )
                if not policy.run.finished:
                    raise KeyboardInterrupt
                policies.append(policy)
            entries[controller] = policies
            curves.append(_curve(controller, policies))
        else:
            policy = load_agent(controller, device=device)
            entries[f"{policy.name} ({Path(controller).name})"] = policy
    with _spinner("comparing") as spinner:
        comparison = compare(problem, entries, starts=starts, seed=seed, progress=spinner.tell)
    _say(str(comparison))
    if folder is not None:
        comparison.save(folder, curves=curves, command=" ".join(command))
        _say(f"report: {folder / 'report.html'}")
    _say(f"{time.perf_counter() - began:.1f} s in all")
    return 0


def _curve(name: str, policies: list[Any]) -> dict[str, Any]:
    """Learning curves of one method, a row per seed."""
    runs = [policy.run.curve for policy in policies]
    return {"name": name} | {
        key: [[point[key] for point in run] for run in runs] for key in ("steps", "seconds", "cost")
    }


def bench_command(arguments: list[str]) -> int:
    from optctl.bench import BENCHES

    if not arguments or arguments[0] in ("-h", "--help"):
        lines = [f"  {name:10} {(bench.__doc__ or '').strip().splitlines()[0]}" for name, bench in BENCHES.items()]
        _say("usage: optctl bench NAME [OPTIONS]\n\n" + "\n".join(lines))
        return 0 if arguments else 2
    _known(arguments[0], BENCHES, "benchmark")
    return _parse(f"bench {arguments[0]}", BENCHES[arguments[0]], arguments[1:])


def demos_command(arguments: list[str]) -> int:
    def demos(
        problem: str,
        num: int = 10_000,
        out: Path = Path("demonstrations"),
        randomize: bool = False,
        seed: int = 0,
        chunk: int = 1000,
    ) -> int:
        """Certified optimal trajectories from random starts, with costates, values and gains, in one safetensors file.

        An interrupted run continues when the command is given again.

        Args:
            problem: A problem of the catalogue (see `optctl list`).
            num: Random starts.
            out: Folder for demonstrations.safetensors and demonstrations.json.
            randomize: Draw the parameters of each plant from the problem's ranges.
            seed: Seed of starts and plants.
            chunk: Starts that are solved and saved together.
        """
        from optctl.hybrid.dataset import generate

        began = time.perf_counter()
        with _spinner(f"solving {problem} from {num} starts") as spinner:
            tell = lambda done, of: spinner.tell(f"{problem}: {done:,} of {of:,} starts")
            found = generate(problem, num, out, seed=seed, randomize=randomize, chunk=chunk, progress=tell)
        mean = found.values[:, 0].mean() if len(found) else float("nan")
        _say(f"{len(found):,} of {num:,} starts certified in {time.perf_counter() - began:.1f} s; mean cost {mean:.6g}")
        _say(f"written: {out / 'demonstrations.safetensors'}")
        return 0 if len(found) else 3

    return _parse("demos", demos, arguments)


def animate_command(arguments: list[str]) -> int:
    def animate(
        problem: str,
        controller: str = "optimal",
        out: Path | None = None,
        x0: tuple[float, ...] = (),
        num_starts: int = 1,
        seed: int = 0,
        seconds: float | None = None,
    ) -> int:
        """A film (GIF or MP4) of a controller at work.

        Args:
            problem: A problem of the catalogue (see `optctl list`).
            controller: optimal, lqr, lqg, mpc, zero, random, or the path of a checkpoint.
            out: The film, ending in .gif or .mp4; PROBLEM-CONTROLLER.gif without it.
            x0: Initial state; without it, starts are drawn from the problem's initial distribution.
            num_starts: Random starts, shown side by side, when there is no --x0.
            seed: Seed of the starts.
            seconds: Length of the film; the trajectory's own duration without it.
        """
        import numpy as np

        from optctl import rollout
        from optctl.comparison.compare import CONTROLLERS
        from optctl.envs import make
        from optctl.pictures.animation import animate as write
        from optctl.problem.controller import check_states
        from optctl.problem.trajectory import Trajectory
        from optctl.solvers import solve_many
        from optctl.training.run import load_agent

        p = make(problem)
        require(1 <= num_starts <= 16, "num_starts", "be from 1 to 16", f"is {num_starts}")
        require(seed >= 0, "seed", "not be negative", f"is {seed}")
        starts = check_states(p, x0) if x0 else p.initial_state.sample(np.random.default_rng(seed), num_starts)
        is_file = Path(controller).exists()
        if not is_file:
            _known(controller, CONTROLLERS, "controller")
        name = Path(controller).resolve().stem if is_file else controller
        path = out or Path(f"{p.name}-{name}.gif")
        with _spinner(f"{name} on {p.name}") as spinner:
            if controller == "optimal":
                trajectory = Trajectory.stack([s.trajectory for s in solve_many(p, starts, seed=seed)])
            else:
                built = (
                    load_agent(controller)
                    if is_file
                    else CONTROLLERS[controller](p, starts, p.param_values[None], seed)
                )
                trajectory = rollout(p, built, starts)  # type: ignore[arg-type]
            spinner.tell(f"drawing {path}")
            write(p, trajectory, path, seconds=seconds)
        _say(f"mean cost {trajectory.total_cost.mean():.6g}\nwritten: {path}")
        return 0

    return _parse("animate", animate, arguments)


COMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "list": (list_command, "the problems, agents and solvers"),
    "solve": (solve_command, "solve a problem: cost, verdict, certificate"),
    "demos": (demos_command, "optimal trajectories by the thousand, in one file"),
    "animate": (animate_command, "a film of a controller at work"),
    "train": (train_command, "train an agent on a problem"),
    "evaluate": (evaluate_command, "a trained policy's cost and gap"),
    "compare": (compare_command, "controllers on the same starts, with gaps and a report"),
    "demo": (demo_command, "the main job on a swing-up, with a report"),
    "bench": (bench_command, "reproduce the performance figures"),
}


# --- progress -----------------------------------------------------------------------------------------------------------


class _spinner:
    """A line that shows what is going on; quiet where there is no terminal."""

    def __init__(self, text: str) -> None:
        from rich.console import Console

        self.console = Console(stderr=True)
        self.status = self.console.status(text)

    def __enter__(self) -> _spinner:
        self.status.__enter__()
        return self

    def tell(self, text: str) -> None:
        self.status.update(text)

    def __exit__(self, *details: Any) -> None:
        self.status.__exit__(*details)


class _TrainingBar:
    """Progress of one training run, with the cost of the last evaluation."""

    def __init__(self, title: str) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        from rich.console import Console

        self.progress = Progress(*columns, console=Console(stderr=True))
        self.task = self.progress.add_task(title, total=None, note="preparing")

    def __enter__(self) -> _TrainingBar:
        self.progress.start()
        return self

    def update(self, run: Any) -> None:
        iteration = run.loop.iteration
        if iteration == 0:
            self.progress.update(self.task, note=run.stage)
        elif iteration % 10 == 0 or run.finished:
            note = f"{iteration * run.config.num_envs:,} steps, cost {run.curve[-1]['cost']:.5g}"
            self.progress.update(self.task, total=run.config.iterations, completed=iteration, note=note)

    def __exit__(self, *details: Any) -> None:
        self.progress.stop()


def _output_folder(path: Path) -> Path:
    """Fail before the work, not after it."""
    from optctl.files import check_writable

    check_writable(path)
    return path


# --- entry --------------------------------------------------------------------------------------------------------------


def _usage() -> str:
    lines = [f"  {name:10} {about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: optctl COMMAND [OPTIONS]",
            "",
            "One definition of a control problem; its batched environment, its optimum, and every policy's gap.",
            "",
            *lines,
            "",
            "`optctl COMMAND --help` shows a command's options.",
        ]
    )


def _end_as_by_keyboard(number: int, frame: Any) -> None:
    """A batch system that ends a job is answered as Ctrl-C is: what was done is saved."""
    handler = signal.getsignal(signal.SIGINT)
    (handler if callable(handler) else signal.default_int_handler)(signal.SIGINT, frame)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        _say(_usage())
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        _say(f"optctl {__version__}")
        return 0
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _end_as_by_keyboard)
        _known(arguments[0], COMMANDS, "command")
        return COMMANDS[arguments[0]][0](arguments[1:])
    except ArgumentError as error:
        print(f"optctl: {error}", file=sys.stderr)
        return 2
    except FileError as error:
        print(f"optctl: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("optctl: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

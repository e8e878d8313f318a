"""Problems of several phases against solutions by hand and by one-dimensional search."""

import casadi as ca
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from optctl.errors import ArgumentError
from optctl.problem import Fixed, Problem, Uniform
from optctl.solvers import solve_phases
from optctl.solvers.solution import Verdict


def mass(steps: int, dt: float, goal) -> Problem:
    return Problem(
        name="mass", state={"q": "m", "v": "m/s"}, control={"a": "m/s²"}, dynamics=lambda x, u, p: ca.vertcat(x[1], u[0]),
        stage_cost=lambda x, u, p: 0.5 * u[0] ** 2, terminal_constraints=goal, dt=dt, steps=steps,
        initial_state=Fixed([0.0, 0.0]),
    )  # fmt: skip


@pytest.mark.parametrize("method", ["collocation", "multiple_shooting"])
def test_a_point_on_the_way(method):
    """½∫u² of Hermite's cubic is 2(v₀² + v₀v₁ + v₁²)/T − 6d(v₀ + v₁)/T² + 6d²/T³: with (0, 0) → (1, v) in 1 s and (1, v) → (0, 0)
    in 2 s that is 3v² − 4.5v + 6.75, least at v = 3/4."""
    phases = [mass(20, 0.05, lambda x, p: x[0] - 1.0), mass(20, 0.1, lambda x, p: x)]
    found = solve_phases(phases, [0.0, 0.0], method=method)
    assert found.ok and found.solution.verdict in (Verdict.EXTREMAL, Verdict.PROVED)
    assert found.value == pytest.approx(5.0625, rel=5e-3 if method == "multiple_shooting" else 1e-9)
    first, second = found.phases
    np.testing.assert_allclose(first.states[-1], [1.0, 0.75], atol=2e-2 if method == "multiple_shooting" else 1e-7)
    np.testing.assert_allclose(second.states[0], first.states[-1], atol=1e-8)
    assert (first.duration, second.duration) == (pytest.approx(1.0), pytest.approx(2.0))
    assert second.times[-1] == pytest.approx(3.0)


def crossing(name: str, speed: str, goal, bounds) -> Problem:
    return Problem(
        name=name, state={"x": "m", "y": "m"}, control={"heading": "rad"}, params={"sand": 2.0, "sea": 0.5},
        dynamics=lambda x, u, p: ca.vertcat(getattr(p, speed) * ca.sin(u[0]), -getattr(p, speed) * ca.cos(u[0])),
        stage_cost=lambda x, u, p: 1.0, terminal_constraints=goal, control_bounds={"heading": (-1.5, 1.5)}, state_bounds=bounds,
        final_time=(0.1, 20.0), dt=0.1, steps=10, initial_state=Fixed([0.0, 0.0]),
    )  # fmt: skip


def test_refraction():
    """Least time from (0, 1) over sand to the sea at y = 0 and on to (3, −1): Snell's law. Durations are free."""
    phases = [
        crossing("run", "sand", lambda x, p: x[1], {"y": (0.0, 2.0)}),
        crossing("swim", "sea", lambda x, p: ca.vertcat(x[0] - 3.0, x[1] + 1.0), {"y": (-2.0, 0.0)}),
    ]
    found = solve_phases(phases, [0.0, 1.0])
    assert found.ok
    run, swim = found.phases
    best = minimize_scalar(
        lambda x: np.hypot(x, 1) / 2 + np.hypot(3 - x, 1) / 0.5,
        bounds=(0, 3),
        method="bounded",
        options={"xatol": 1e-12},
    )
    assert found.value == pytest.approx(best.fun, rel=1e-8)
    assert run.states[-1, 0] == pytest.approx(best.x, abs=1e-4)
    assert np.sin(run.controls[0, 0]) / np.sin(swim.controls[0, 0]) == pytest.approx(2.0 / 0.5, rel=1e-4)
    assert run.duration + swim.duration == pytest.approx(found.value, rel=1e-9)


def test_a_link_changes_the_state():
    """Between the phases the mass is thrown back by 1 m and stops: from (0, 0) to (1, v), then (0, 0) to (1, 0), both in 1 s.
    The first costs 2v² − 6v + 6, least at v = 3/2: 3/2; the second 6."""
    phases = [mass(10, 0.1, lambda x, p: x[0] - 1.0), mass(10, 0.1, lambda x, p: ca.vertcat(x[0] - 1.0, x[1]))]
    found = solve_phases(phases, [0.0, 0.0], links=[lambda x: ca.vertcat(x[0] - 1.0, 0.0)])
    assert found.value == pytest.approx(7.5, rel=1e-9)
    np.testing.assert_allclose(found.phases[0].states[-1], [1.0, 1.5], atol=1e-7)
    np.testing.assert_allclose(found.phases[1].states[0], [0.0, 0.0], atol=1e-8)


def test_what_cannot_be_linked_is_named():
    one = mass(10, 0.1, lambda x, p: x)
    with pytest.raises(ArgumentError, match="phases"):
        solve_phases([], [0.0, 0.0])
    with pytest.raises(ArgumentError, match="`links` must have 1 entries"):
        solve_phases([one, one], [0.0, 0.0], links=[None, None])
    with pytest.raises(ArgumentError, match=r"`x0` must have shape \(2,\)"):
        solve_phases([one], [0.0])
    with pytest.raises(ArgumentError, match=r"phases\[1\].*`g` = 1"):
        solve_phases([one.replace(params={"g": 1.0}), one.replace(params={"g": 2.0})], [0.0, 0.0])


def test_links_may_be_lists_and_must_fit():
    first, second = (
        Problem(
            name=f"leg-{k}", state=["q", "v"], control=["u"], dynamics=lambda x, u, p: [x[1], u[0]],
            stage_cost=lambda x, u, p: u[0] ** 2, dt=0.1, steps=10, initial_state=Uniform([-1, -1], [1, 1]), **end,
        )
        for k, end in enumerate(({}, {"terminal_constraints": lambda x, p: [x[0] - 1, x[1]]}))
    )  # fmt: skip
    plain = solve_phases([first, second], [0.0, 0.0])
    listed = solve_phases([first, second], [0.0, 0.0], links=[lambda x: [x[0], x[1]]])
    assert listed.solution.value == pytest.approx(plain.solution.value, rel=1e-9)
    with pytest.raises(ArgumentError, match="`links` must map 2 states to 2, but returns 1 rows"):
        solve_phases([first, second], [0.0, 0.0], links=[lambda x: [x[0]]])

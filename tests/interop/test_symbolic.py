"""sympy right-hand sides against the catalogue's own and sympy's numbers."""

import numpy as np
import pytest
import sympy

import optctl
from optctl.errors import ArgumentError
from optctl.interop import from_sympy

X, V, U, K, T = sympy.symbols("x v u k t")
REST = {"dt": 0.1, "steps": 10, "initial_state": optctl.Uniform([-1, -1], [1, 1]), "name": "test"}


def one(expression, **changes):
    """The value of v' at x = 0.7, v = −0.4, u = 0.3, k = 2, t = 0.5."""
    problem = from_sympy([V, expression], [X, V], [U], stage_cost=X**2, params={K: 2.0}, time=T, **(REST | changes))
    return float(problem.dynamics_function([0.7, -0.4], [0.3], [2.0], 0.5)[1])


VALUES = {X: 0.7, V: -0.4, U: 0.3, K: 2.0, T: 0.5}
EXPRESSIONS = [
    X + V - 2 * U, X * V / K, X**3 - V**2, sympy.sqrt(X) * K, X ** sympy.Rational(-3, 2), X**K, sympy.exp(-X) + sympy.log(X),
    sympy.sin(X) * sympy.cos(V) + sympy.tan(U), sympy.asin(X) + sympy.acos(V) + sympy.atan(U), sympy.atan2(X, V),
    sympy.sinh(X) + sympy.cosh(V) + sympy.tanh(U), sympy.asinh(X) + sympy.acosh(K) + sympy.atanh(V), sympy.Abs(V) + sympy.sign(V),
    sympy.floor(V) + sympy.ceiling(V), sympy.Max(X, V, 0.5) - sympy.Min(X, V, U), sympy.erf(X),
    sympy.pi * X + sympy.E + sympy.Rational(1, 3),
    sympy.Piecewise((X, V > 0), (U, sympy.And(X > 0, V <= 0)), (1, True)), sympy.Piecewise((X, sympy.Or(V > 0, X < 0)), (K, True)),
    sympy.Piecewise((X, sympy.Eq(X, V)), (K, sympy.Ne(X, 0)), (1, True)), sympy.Mod(V, K) + sympy.Mod(X, U), sympy.frac(V),
    sympy.Piecewise((X, sympy.Xor(X > 0, V > 0, U > 0)), (K, True)), sympy.Piecewise((X, sympy.ITE(V > 0, X > 0, U > 0)), (K, True)),
    sympy.sinc(X), sympy.acot(V) + sympy.asec(K) + sympy.acsc(K), sympy.sech(X) + sympy.csch(V) + sympy.coth(U),
    sympy.re(X) * sympy.conjugate(V) + sympy.im(X), sympy.Piecewise((X, sympy.And(X > 0, K > 0, V > 0)), (U, True)),
    sympy.Heaviside(V) + 2 * sympy.Heaviside(X), sympy.sin(K * T), sympy.sec(X) + sympy.cot(X), sympy.Float(2.5),
]  # fmt: skip


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=str)
def test_expressions_have_sympys_values(expression):
    assert one(expression) == pytest.approx(float(sympy.sympify(expression).subs(VALUES)), rel=1e-12)


def test_a_pendulum_of_lagrange_is_the_catalogues():
    theta = sympy.Function("theta")(T)
    omega, torque, m, length, g = sympy.symbols("omega torque mass length gravity")
    lagrangian = m * length**2 * theta.diff(T) ** 2 / 2 - m * g * length * sympy.cos(theta)  # θ = 0 upright
    motion = sympy.solve(
        sympy.diff(lagrangian.diff(theta.diff(T)), T) - lagrangian.diff(theta) - torque, theta.diff(T, 2)
    )
    mine = from_sympy(
        sympy.Matrix([omega, motion[0]]), {theta: "rad", omega: "rad/s"}, {torque: "N m"},
        stage_cost=1 - sympy.cos(theta) + 0.1 * omega**2 + 0.001 * torque**2, params={m: 1.0, length: 1.0, g: 9.81},
        name="pendulum", dt=0.05, steps=200, horizon="infinite", initial_state=optctl.Uniform([-1, -1], [1, 1]),
    )  # fmt: skip
    theirs = optctl.make("pendulum")
    assert list(mine.state) == ["theta", "omega"] and mine.state["theta"] == "rad"
    for x in np.random.default_rng(0).uniform(-3, 3, (5, 2)):
        a, b = (p.step_function(x, [0.7], [1.2, 0.8, 9.81], 0) for p in (mine, theirs))
        assert np.array(a[0]) == pytest.approx(np.array(b[0]), abs=1e-12) and float(a[1]) == pytest.approx(float(b[1]))


def test_derivatives_and_elements_have_names_of_their_own():
    q1, q2, force = (sympy.Function(name)(T) for name in ("q1", "q2", "F"))
    v1, v2 = q1.diff(T), q2.diff(T)
    rest = REST | {"initial_state": optctl.Uniform([-1] * 4, [1] * 4)}
    problem = from_sympy(
        [v1, v2, -q1 + force, -q2 + q1], [q1, q2, v1, v2], [force], stage_cost=q1**2 + force**2, **rest
    )
    assert list(problem.state) == ["q1", "q2", "q1_dot", "q2_dot"] and list(problem.control) == ["F"]
    assert np.array(problem.dynamics_function([1, 2, 3, 4], 5, [], 0)).ravel().tolist() == [3, 4, 4, -1]
    x, m, k = sympy.IndexedBase("x"), sympy.MatrixSymbol("m", 2, 1), sympy.IndexedBase("k")
    problem = from_sympy(
        [x[1], k[0] * m[0, 0]], [x[0], x[1]], [m[0, 0], m[1, 0]], stage_cost=m[1, 0] ** 2, params={k[0]: 3.0}, **REST
    )
    assert (
        list(problem.state) == ["x_0", "x_1"]
        and list(problem.control) == ["m_0_0", "m_1_0"]
        and problem.params == {"k_0": 3.0}
    )
    with pytest.raises(
        ArgumentError, match=r"`states` must have different names, but has q1\(t\) and q1, both named `q1`"
    ):
        from_sympy([U, U], [q1, sympy.Symbol("q1")], [U], stage_cost=U**2, **REST)
    with pytest.raises(ArgumentError, match=r"must use only its states.*but uses Derivative\(q1\(t\), t\)"):
        from_sympy([v1, U], [q1, X], [U], stage_cost=U**2, **REST)


def test_sinc_has_its_limit_and_derivative_at_zero():
    rate = from_sympy([V, sympy.sinc(X)], [X, V], [U], stage_cost=X**2, **REST).dynamics_function
    assert float(rate([0, 0], 0, [], 0)[1]) == 1.0
    slope = np.array(rate.jacobian()([0, 0], 0, [], 0, rate([0, 0], 0, [], 0))[0])
    assert slope[1, 0] == 0.0


def test_discrete_maps_and_terminal_costs():
    problem = from_sympy(
        [X + V, V + U], [X, V], [U], stage_cost=X * U, terminal_cost=K * X**2, params={K: 3.0}, discrete=True, **REST
    )
    after, cost = problem.step_function([1.0, 2.0], [0.5], [3.0], 0)
    assert np.array(after).ravel().tolist() == [3.0, 2.5] and float(cost) == 0.5
    assert float(problem.terminal_cost_function([2.0, 0.0], [3.0], 0)) == 12.0


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        (sympy.Symbol("z"), r"`rhs` must use only its states, controls, params and time \(x, v, u, k, t\), but uses z"),
        (sympy.Function("f")(X), r"`rhs` must use only its states.*, but uses f\(x\)"),
        (sympy.gamma(X), "`rhs` must use functions that have a translation here .*, but uses gamma"),
        (sympy.I * X, "`rhs` must be real, but contains I"),
    ],
)
def test_what_has_no_translation(expression, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        one(expression)


def test_one_entry_for_each_state():
    with pytest.raises(ArgumentError, match="`rhs` must have 2 entries, one for each state, but has 1"):
        from_sympy([V], [X, V], [U], stage_cost=X**2, **REST)
    with pytest.raises(ArgumentError, match="`fields` must leave the motion to `rhs`"):
        from_sympy([V, U], [X, V], [U], stage_cost=X**2, transition=lambda x, u, p: x, **REST)

"""Every operation, compiled, against CasADi's own interpreter."""

import casadi as ca
import numpy as np
import pytest
import torch

from optctl.simulation.compiled import CompiledFunction
from optctl.simulation.program import ARITY, BINARY, OPERATION
from optctl.simulation.warp_source import Target, constant

CODE = {name: code for code, name in OPERATION.items()}
EDGES = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    2.0,
    -2.0,
    3.0,
    1e-8,
    -1e-8,
    0.3,
    7.7,
    -7.7,
    88.0,
    1e6,
    np.inf,
    -np.inf,
    np.nan,
]
X, Y = ca.SX.sym("x"), ca.SX.sym("y")


def points(arity: int, seed: int) -> np.ndarray:
    """Edge values (all pairs of them) and random ones, shape (N, arity)."""
    rng = np.random.default_rng(seed)
    random = rng.standard_normal((400, arity)) * 10.0 ** rng.integers(-3, 3, (400, 1))
    edges = np.array(np.meshgrid(*[EDGES] * arity)).reshape(arity, -1).T
    return np.concatenate([edges, random])


def expected(function: ca.Function, x: np.ndarray) -> np.ndarray:
    return np.array([function.call([float(v) for v in row])[0] for row in x], dtype=float).ravel()


def computed(function: ca.Function, x: np.ndarray, dtype: str) -> np.ndarray:
    compiled = CompiledFunction(function, dtype=dtype)
    columns = [torch.tensor(x[:, j], dtype=compiled.dtype)[:, None] for j in range(x.shape[1])]
    return compiled.evaluate(*columns)[0][:, 0].double().numpy()


def operation(name: str) -> ca.Function:
    if ARITY[name] == 2:
        return ca.Function(name, [X, Y], [ca.SX.binary(CODE[name], X, Y)])
    if name == "lift":  # the identity, with a hint that only some solvers read
        return ca.Function(name, [X], [ca.SX.binary(CODE[name], X, X)])
    return ca.Function(name, [X], [ca.SX.unary(CODE[name], X)])


def assert_close(y: np.ndarray, reference: np.ndarray, x: np.ndarray, rtol: float, atol: float) -> None:
    wrong = ~np.isclose(y, reference, rtol=rtol, atol=atol, equal_nan=True)
    assert not wrong.any(), list(zip(x[wrong][:5].tolist(), y[wrong][:5], reference[wrong][:5], strict=True))


@pytest.mark.parametrize("name", sorted(ARITY))
def test_operation_equals_casadi(name):
    function = operation(name)
    x = points(ARITY[name], seed=CODE[name])
    if name in ("fmin", "fmax"):  # C drops a NaN; the kernels pass it on
        x = x[~np.isnan(x).any(axis=1)]
    reference = expected(function, x)
    if name in ("fmin", "fmax"):
        assert np.isnan(computed(function, np.array([[np.nan, 1.0], [1.0, np.nan]]), "float64")).all()
    loose = 1e-6 if name == "erfinv" else 2e-14  # CasADi's own inverse error function is good to seven digits
    assert_close(computed(function, x, "float64"), reference, x, rtol=loose, atol=1e-300)

    x32 = x.astype(np.float32).astype(np.float64)
    with np.errstate(over="ignore"):
        reference = expected(function, x32).astype(np.float32).astype(np.float64)
    tolerance = 1e-5 if name in ("pow", "constpow", "erfinv") else 1e-6
    assert_close(computed(function, x32, "float32"), reference, x32, rtol=tolerance, atol=1e-37)


def test_every_binary_operation_of_casadi_on_scalars_is_covered_or_refused():
    scalar = {"add", "sub", "mul", "div", "pow", "constpow", "lt", "le", "eq", "ne", "and", "or", "fmod", "copysign",
              "if_else_zero", "fmin", "fmax", "atan2", "hypot", "remainder"}  # fmt: skip
    assert scalar == set(BINARY)


def test_a_masked_nan_does_not_leak():
    function = ca.Function("f", [X], [ca.if_else(X > 0, ca.log(X), 7.0), ca.if_else(X > 0, 7.0, ca.sqrt(-X))])
    y = CompiledFunction(function, dtype="float64").evaluate(torch.tensor([[-1.0], [4.0]], dtype=torch.float64))
    assert y[0][:, 0].tolist() == [7.0, np.log(4.0)]
    assert y[1][:, 0].tolist() == [1.0, 7.0]


def test_an_unmasked_nan_is_passed_on():
    function = ca.Function("f", [X], [ca.fmin(ca.fmax(ca.sqrt(X), -1.0), 1.0)])
    assert CompiledFunction(function).evaluate(torch.tensor([[-1.0]]))[0].isnan().all()


@pytest.mark.parametrize("power", [1, 2, 3, 4, 5, 7, 8, -1, -2, 0.5, 9])
def test_constant_powers(power):
    function = ca.Function("f", [X], [X**power])
    x = np.array([[0.7], [1.3], [2.0], [11.0]])
    assert_close(computed(function, x, "float64"), x[:, 0] ** power, x, rtol=1e-14, atol=0.0)


def test_constants_keep_every_bit():
    for value in (0.1, 1 / 3, np.pi, 1e-300, 5e-324, 1.7976931348623157e308, -0.0):
        function = ca.Function("f", [X], [X * 0 + value if value else X * value])
        got = CompiledFunction(function, dtype="float64").evaluate(torch.ones(1, 1, dtype=torch.float64))[0].item()
        assert got == value
    assert constant(np.inf, Target("float32", "cpu")) == "wp.float32(wp.inf)"
    assert constant(1e300, Target("float32", "cpu")) == "wp.float32(wp.inf)"


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_vectorised_trigonometry_is_correctly_rounded_up_to_rare_ties(name):
    """The error stays below 0.51 units in the last place, that is 0.51 · 2⁻²³ of the power of two at the result."""
    rng = np.random.default_rng(0)
    wide = rng.uniform(-4e8, 4e8, 100_000)
    x = np.concatenate(
        [rng.uniform(-10, 10, 300_000), rng.uniform(-1e4, 1e4, 100_000), wide, rng.normal(0, 1e-4, 1000)]
    )
    x = x.astype(np.float32)
    y = computed(operation(name), x[:, None].astype(float), "float32")
    truth = getattr(np, name)(x.astype(np.longdouble))
    unit = np.spacing(np.abs(truth).astype(np.float32)).astype(float)
    assert np.max(np.abs(y - truth) / unit) < 0.51


def test_vectorised_trigonometry_of_huge_and_special_values():
    x = np.array([[1e9], [1e20], [3e38], [np.inf], [-np.inf], [np.nan], [-0.0]])
    y = computed(operation("sin"), x, "float32")
    assert (np.abs(y[:3]) <= 1).all()
    assert np.isnan(y[3:6]).all()
    assert y[6] == 0 and np.signbit(y[6])
    assert abs(y[0] - np.sin(np.float64(np.float32(1e9)))) < 1e-6


def test_scalar_remainder_of_a_vector_loop_gives_the_same_bits():
    function = ca.Function("f", [X], [ca.sin(X) * ca.cos(3 * X) + ca.sqrt(ca.fabs(X)) / (1 + X * X)])
    x = torch.randn(1000, 1)
    compiled = CompiledFunction(function)
    whole = compiled.evaluate(x)[0]
    for n in (1, 3, 17, 64, 999):
        assert torch.equal(compiled.evaluate(x[:n].clone())[0], whole[:n])

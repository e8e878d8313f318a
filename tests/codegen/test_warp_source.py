"""Every operation, compiled, against CasADi's own interpreter."""

import functools

import casadi as ca
import numpy as np
import pytest
import torch

from optctl.codegen.program import ARITY, BINARY, OPERATION
from optctl.codegen.warp_source import Target, constant
from optctl.simulation.compiled import CompiledFunction

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


@functools.cache
def all_operations(arity: int, dtype: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Points that the type represents, and every operation of so many arguments there, compiled into one kernel."""
    names = [name for name in ARITY if ARITY[name] == arity]
    symbols, x = [X, Y][:arity], points(arity, seed=arity).astype(dtype).astype(float)
    compiled = CompiledFunction(ca.Function("all", symbols, [operation(name)(*symbols) for name in names]), dtype=dtype)
    columns = [torch.tensor(column, dtype=compiled.dtype)[:, None] for column in x.T]
    values = [value[:, 0].double().numpy() for value in compiled.evaluate(*columns)]
    return x, dict(zip(names, values, strict=True))


@pytest.mark.parametrize("name", sorted(ARITY))
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_operation_equals_casadi(name, dtype):
    x, values = all_operations(ARITY[name], dtype)
    y = values[name]
    if name in ("fmin", "fmax"):  # C drops a NaN; the kernels pass it on
        lost = np.isnan(x).any(axis=1)
        assert np.isnan(y[lost]).all()
        x, y = x[~lost], y[~lost]
    with np.errstate(over="ignore"):
        reference = expected(operation(name), x).astype(dtype).astype(float)
    loose = {"erfinv": (1e-6, 1e-5), "pow": (2e-14, 1e-5), "constpow": (2e-14, 1e-5)}
    rtols = loose.get(name, (2e-14, 1e-6))  # CasADi's own inverse error function is good to seven digits
    rtol, atol = (rtols[0], 1e-300) if dtype == "float64" else (rtols[1], 1e-37)
    assert_close(y, reference, x, rtol=rtol, atol=atol)


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


def test_constant_powers():
    powers = [1, 2, 3, 4, 5, 7, 8, -1, -2, 0.5, 9]
    compiled = CompiledFunction(ca.Function("f", [X], [X**power for power in powers]), dtype="float64")
    x = np.array([[0.7], [1.3], [2.0], [11.0]])
    for power, y in zip(powers, compiled.evaluate(torch.tensor(x)), strict=True):
        np.testing.assert_allclose(y, x**power, rtol=1e-14, err_msg=f"x to the {power}")


def test_constants_keep_every_bit():
    values = (0.1, 1 / 3, np.pi, 1e-300, 5e-324, 1.7976931348623157e308, -0.0)
    function = ca.Function("f", [X], [X * 0 + value if value else X * value for value in values])
    got = CompiledFunction(function, dtype="float64").evaluate(torch.ones(1, 1, dtype=torch.float64))
    assert tuple(y.item() for y in got) == values
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

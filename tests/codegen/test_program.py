"""CasADi functions become single-assignment programs, or a sentence that says why not."""

import casadi as ca
import pytest

from optctl.codegen.program import TranslationError, build_program

X, Y = ca.SX.sym("x"), ca.SX.sym("y")


def test_common_subexpressions_are_computed_once_and_unneeded_ones_not_at_all():
    shared = ca.sin(X) * ca.sin(X + 0)  # two sines of one argument
    program = build_program(ca.Function("f", [X, Y], [shared]))
    assert [k.operation for k in program.instructions].count("sin") == 1
    assert program.operations == 2  # sin and its square


def test_structural_zeros_are_zero_and_order_is_by_columns():
    sparse = ca.SX(2, 2)
    sparse[0, 1] = X  # [[0, x], [0, 0]]
    program = build_program(ca.Function("f", [X], [sparse]))
    values = [program.instructions[k] for k in program.outputs[0]]
    assert program.output_shapes == ((2, 2),)
    assert [v.operation for v in values] == ["const", "const", "input", "const"]
    assert values[0].constant == 0.0


def test_slots_that_casadi_reuses_do_not_mix():
    value = X
    for _ in range(20):
        value = ca.cos(value) + Y
    program = build_program(ca.Function("f", [X, Y], [value, X - Y]))
    for k, instruction in enumerate(program.instructions):
        if instruction.operation != "input":
            assert all(a < k for a in instruction.arguments)


def test_a_matrix_expression_is_expanded():
    m = ca.MX.sym("m", 2)
    program = build_program(ca.Function("f", [m], [ca.dot(m, m)]))
    assert program.input_sizes == (2,) and program.operations == 3  # two squares, one sum


def test_an_untranslatable_operation_is_named_with_the_output_and_function_that_need_it():
    function = ca.Function("swing", [X, Y], [X, X.printme(Y)], ["x", "y"], ["fine", "loud"])
    with pytest.raises(TranslationError, match=r"`swing` cannot be compiled: its output `loud` .* operation `printme`"):
        build_program(function)


def test_an_untranslatable_operation_that_no_output_needs_is_no_error():
    inner = ca.Function("inner", [X, Y], [X, X.printme(Y)], ["x", "y"], ["fine", "loud"])
    assert build_program(ca.Function("outer", [X, Y], [inner(X, Y)[0]])).operations == 0


def test_a_table_lookup_and_a_linear_solver_are_refused():
    m = ca.MX.sym("m", 2)
    table = ca.interpolant("table", "bspline", [[0.0, 1.0, 2.0, 3.0]], [0.0, 1.0, 4.0, 9.0])
    with pytest.raises(
        TranslationError,
        match=r"`f` cannot be compiled: its output `y` needs the CasADi operation `call`.*`casadi.pw_lin`",
    ):
        build_program(ca.Function("f", [m], [table(m[0])], ["m"], ["y"]))
    with pytest.raises(TranslationError, match="its outputs `y` do not expand to scalar operations"):
        build_program(ca.Function("f", [m], [ca.solve(ca.horzcat(m, m * m), m)], ["m"], ["y"]))


def test_a_free_symbol_is_refused():
    with pytest.raises(TranslationError, match="free symbol y"):
        build_program(ca.Function("f", [X], [X * Y], {"allow_free": True}))

"""Optional libraries: nothing is loaded early, and one sentence says what is missing."""

import importlib
import subprocess
import sys

import pytest

import optctl.interop
from optctl.optional import library


def test_importing_the_package_loads_no_library():
    code = (
        "import sys, optctl.interop\n"
        "print([m for m in ('torch', 'warp', 'casadi', 'qutip', 'control', 'sympy', 'pettingzoo', 'torchrl') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'from_nowhere'"):
        optctl.interop.from_nowhere


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [("optctl.interop.pettingzoo", "pettingzoo", "pettingzoo"), ("optctl.interop.torchrl", "tensordict", "torchrl")],
)
def test_an_adapter_without_its_library_says_how_to_get_it(monkeypatch, module, missing, extra):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(ModuleNotFoundError, match=rf"which is not installed: pip install 'optctl\[{extra}\]'"):
        importlib.import_module(module)


@pytest.mark.parametrize(
    ("call", "missing", "extra"),
    [
        (lambda: optctl.interop.from_sympy([], [], [], stage_cost=0), "sympy", "sympy"),
        (lambda: optctl.interop.to_control(optctl.make("mass-spring")), "control", "control"),
        (lambda: optctl.interop.to_qutip(optctl.make("qubit-transfer"), [[0.0]]), "qutip", "qutip"),
        (lambda: optctl.interop.from_qutip(None, initial=None, target=None, dt=0.1, steps=1), "qutip", "qutip"),
    ],
)
def test_a_function_without_its_library_says_how_to_get_it(monkeypatch, call, missing, extra):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModuleNotFoundError, match=rf"which is not installed: pip install 'optctl\[{extra}\]'"):
        call()


def test_a_library_that_is_there_but_broken_keeps_its_own_error(tmp_path, monkeypatch):
    (tmp_path / "half_there.py").write_text("import nothing_like_this")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'nothing_like_this'"):
        library("half_there", "HalfThere", "half")

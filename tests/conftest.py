"""What every test shares: one thread, and the processor time of each test; the most expensive files and tests are printed last.

Networks and kernels are small, and results must not depend on the machine's load: one thread. Processor time, children
included, is what a test costs wherever it runs; wall time on a shared machine is not.
"""

import multiprocessing
import os
import signal
import sys
from collections import Counter

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; processes that tests start inherit it

import pytest
import torch

torch.set_num_threads(1)
MOST_EXPENSIVE = 20  # files and tests in the lists


@pytest.fixture(autouse=True, scope="session")
def _one_core():
    """As if there were no other core: processes that share the starts of a test would each build all of its functions anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
        yield


@pytest.fixture(autouse=True)
def _one_thread():
    """Undo what a test that needs more threads has set."""
    yield
    torch.set_num_threads(1)


@pytest.fixture
def fork():
    """Start a function in a copy of this process, which, unlike a fresh Python, imports nothing anew."""
    processes = []

    def start(function, *arguments):
        processes.append(multiprocessing.get_context("fork").Process(target=_as_a_command, args=(function, *arguments)))
        processes[-1].start()
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.join()


@pytest.fixture
def compile_for_gpus(tmp_path):
    """Compile generated source for a GPU, which need not be there; Warp has no compiler for them on macOS alone."""
    if sys.platform == "darwin":
        pytest.skip("this Warp has no compiler for CUDA")

    def compiled(source):
        import warp as wp

        from optctl.codegen.cache import load_module

        module = load_module(source)
        wp.set_module_options({"optimization_level": 1}, module)  # whether it compiles does not depend on how well
        wp.compile_aot_module(module, arch=90, module_dir=tmp_path, use_ptx=True)
        assert any(path.suffix == ".ptx" for path in tmp_path.iterdir())

    return compiled


def _as_a_command(function, *arguments):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background may have been told to ignore it
    function(*arguments)


def _processor_seconds():
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


_spent = {"at": _processor_seconds()}


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    _spent["at"] = _processor_seconds()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Setup, call and teardown each report what they have used since the one before; xdist carries the attribute along."""
    report = yield
    now = _processor_seconds()
    report.processor_seconds, _spent["at"] = now - _spent["at"], now
    return report


def pytest_terminal_summary(terminalreporter):
    tests, files = Counter(), Counter()
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if hasattr(report, "processor_seconds"):
            tests[report.nodeid] += report.processor_seconds
            files[report.nodeid.partition("::")[0]] += report.processor_seconds
    for what, spent in (("files", files), ("tests", tests)):
        if spent:
            terminalreporter.section(f"{spent.total():.0f} s of processor time, of which the most expensive {what}")
            for name, seconds in spent.most_common(MOST_EXPENSIVE):
                terminalreporter.write_line(f"{seconds:7.2f} s  {name}")

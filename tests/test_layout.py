"""The layout of the code: no circle of modules, no private name of another module, short files, and true lists of public names."""

import ast
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LONGEST = 500  # lines
# optctl/ has links to the other two
FOLDERS = {"optctl": "optctl", "envs": "optctl.envs", "solvers": "optctl.solvers"}
FILES = {
    ".".join((package, *path.relative_to(ROOT / folder).with_suffix("").parts)).removesuffix(".__init__"): path
    for folder, package in FOLDERS.items()
    for path in (ROOT / folder).rglob("*.py")
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def for_types_only(tree):
    """What stands below `if TYPE_CHECKING:`."""
    tests = (node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    return {inner for test in tests for statement in test.body for inner in ast.walk(statement)}


def imports(name, wherever=False):
    """(module, what is taken from it or None, what it is called here) of each import of the package's own, in functions as well."""
    package = name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]
    ignored = set() if wherever else for_types_only(TREES[name])
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom) and node not in ignored:
            source = resolve_name("." * node.level + (node.module or ""), package)
            found = [(source, alias.name, alias.asname or alias.name) for alias in node.names]
        elif isinstance(node, ast.Import) and node not in ignored:
            found = [(alias.name, None, alias.asname or alias.name) for alias in node.names]
        else:
            continue
        yield from (each for each in found if each[0] in FILES)


def private(name):
    return name.startswith("_") and not name.startswith("__")


def test_no_module_imports_itself_by_way_of_others():
    module = lambda source, taken: f"{source}.{taken}" if f"{source}.{taken}" in FILES else source
    graph = {name: {module(source, taken) for source, taken, _ in imports(name)} for name in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("each imports the next: " + " → ".join(reversed(error.args[1])))


def test_private_names_stay_in_their_module():
    taken = [
        f"{name}: {source}.{what}" for name in FILES for source, what, _ in imports(name, True) if private(what or "")
    ]
    for name, tree in TREES.items():
        modules = {here for source, what, here in imports(name, True) if what is None or f"{source}.{what}" in FILES}
        reads = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and private(node.attr))
        taken += [f"{name}: {ast.unparse(node)}" for node in reads if ast.unparse(node.value) in modules]
    assert taken == []


def test_files_are_short_enough_to_be_read():
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in FILES.items()}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def assigns_all(tree):
    targets = (node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)] for node in tree.body)
    return any(isinstance(target, ast.Name) and target.id == "__all__" for each in targets for target in each)


@pytest.mark.parametrize("name", [name for name, tree in TREES.items() if assigns_all(tree)])
def test_every_published_name_is_there(name):
    module = import_module(name)  # `make test` installs the optional libraries: one that is missing is an error
    assert [published for published in module.__all__ if not hasattr(module, published)] == []

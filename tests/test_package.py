"""The package is what pyproject says it is."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_package_list_equals_the_tree():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = set()
    for top, name in (("optctl", "optctl"), ("envs", "optctl.envs"), ("solvers", "optctl.solvers")):
        for init in (ROOT / top).rglob("__init__.py"):
            inner = init.parent.relative_to(ROOT / top).parts
            if inner[:1] not in (("envs",), ("solvers",)) or top != "optctl":
                found.add(".".join((name, *inner)))
    assert listed == found


def test_the_symlinks_lead_to_the_top_level_folders():
    for name in ("envs", "solvers"):
        assert (ROOT / "optctl" / name).is_symlink()
        assert (ROOT / "optctl" / name).resolve() == ROOT / name


def test_catalogue_modules_exist_once():
    code = "import optctl.envs.lqr, sys; assert 'envs' not in sys.modules and 'envs.lqr' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_constraints_pin_the_direct_dependencies():
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [w for extra in project["optional-dependencies"].values() for w in extra if not w.startswith("optctl[")]
    wanted = project["dependencies"] + extras
    names = {re.split(r"[\[<>=]", w)[0].strip().lower() for w in wanted}
    assert names <= pinned, names - pinned


def test_the_gallery_shows_the_catalogue():
    from optctl.envs import CATALOGUE

    docs = ROOT / "docs"
    assert {path.stem for path in (docs / "pictures").glob("*.png")} == set(CATALOGUE)
    page = (docs / "gallery.md").read_text()
    assert [name for name in CATALOGUE if f"](pictures/{name}.png)" not in page] == []
    for path in [ROOT / "README.md", *docs.rglob("*.md")]:
        links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())
        assert [link for link in links if not (path.parent / link).exists()] == [], path

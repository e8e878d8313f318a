"""The package is what pyproject says it is."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from setuptools import find_packages

ROOT = Path(__file__).parent.parent


def test_every_folder_of_modules_is_a_package_that_setuptools_finds():
    found = {name for name in find_packages(str(ROOT)) if name.split(".")[0] == "optctl"}
    folders = {path.parent for path in (ROOT / "optctl").rglob("*.py")}
    folders |= {
        ROOT / "optctl" / path.parent.relative_to(ROOT)
        for top in ("envs", "solvers")
        for path in (ROOT / top).rglob("*.py")
    }
    assert found == {".".join(folder.relative_to(ROOT).parts) for folder in folders}


def test_the_symlinks_lead_to_the_top_level_folders():
    for name in ("envs", "solvers"):
        assert (ROOT / "optctl" / name).is_symlink()
        assert (ROOT / "optctl" / name).resolve() == ROOT / name


def test_catalogue_modules_exist_once():
    code = "import optctl.envs.lqr, sys; assert 'envs' not in sys.modules and 'envs.lqr' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_subpackages_are_attributes_that_load_on_first_use():
    code = """
import sys, optctl
heavy = [m for m in ("casadi", "torch", "warp", "scipy", "matplotlib", "gymnasium") if m in sys.modules]
assert not heavy, heavy
assert callable(optctl.solvers.solve) and optctl.interop.from_sympy and "solvers" in dir(optctl)
assert not hasattr(optctl, "solver") and not hasattr(optctl, "__wrapped__")
"""
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

"""Every block of Python on a page runs; links and anchors lead somewhere; the site has every page; family pages are complete."""

import pkgutil
import re
from pathlib import Path

import pytest
from shortened import SHORT, shortened

from optctl.envs import CATALOGUE

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
WRITTEN = ("docs/gallery.md", "docs/results.md", "docs/pictures/")
"""Pages and pictures that commands write: `make gallery`, `optctl bench`."""

BEFORE = {
    ("docs/simulation.md", 1): """
        import numpy as np, optctl, torch
        action, mask, states, params = torch.zeros(4096, 1), np.arange(4096) < 7, np.zeros((1, 4)), [[1.0, 0.3, 0.5, 9.81]]""",
    ("docs/simulation.md", 2): """
        import optctl, torch
        from torch import nn
        env, actions = optctl.make_vec("pendulum-v1", 16), torch.rand(16, 10, 1)""",
    ("docs/simulation.md", 3): """
        import optctl, torch
        x, p = torch.rand(8, 2, dtype=torch.float64, requires_grad=True), None
        u = torch.zeros(8, 20, 1, dtype=torch.float64, requires_grad=True)""",
    ("docs/transforms.md", 1): "import numpy as np, optctl",
    ("docs/stating.md", 2): "import optctl; my_problem = optctl.make('lqr-scalar')",
}
"""What a block takes for granted, by page and number."""
FEWER = {
    ("README.md", 1): {
        "warm_start=True": "warm_start=SHORT, budget_seconds=0.5",
        "num_starts=64": "num_starts=4",
        "steps=150": "steps=40",
    },
    ("docs/batched.md", 1): {"1000": "2", "10_000": "2"},
    ("docs/transforms.md", 1): {"default_rng(0), 8)": "default_rng(0), 1)", '"pendulum")': '"pendulum", steps=30)'},
    ("docs/batched.md", 2): {"horizon=20": "horizon=5", "num_starts=8": "num_starts=2"},
    ("docs/families/quantum.md", 2): {
        "steps=120": "steps=40",
        "infidelity=1e-8": "infidelity=1e-4",
        "restarts=64": "restarts=4",
    },
    ("docs/solvers.md", 1): {"default_rng(0), 100)": "default_rng(0), 4)"},
    ("docs/solvers.md", 2): {"restarts=100": "restarts=4"},
    ("docs/learning.md", 1): {"iterations=400": "iterations=12"},
    ("docs/learning.md", 2): {"% 50": "% 5", '["cost"] < 2': '["iteration"] >= 25'},
    ("docs/learning.md", 3): {"=300": "=14", "=200": "=12"},
    ("docs/comparing.md", 1): {"num_starts=32": "num_starts=4"},
    ("docs/extending.md", 1): {"seconds=2": "seconds=0.2"},
    ("docs/extending.md", 2): {"200)": "14)", "num_starts=32": "num_starts=4"},
    ("docs/extending.md", 3): {"40)": "3)", "num_starts=32": "num_starts=4"},
}
"""What a block does many times, and how often it does so here, where only the calls are tested."""


def blocks():
    for page in PAGES:
        name, text = str(page.relative_to(ROOT)), page.read_text()
        for number, found in enumerate(re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S), start=1):
            yield name, number, text[: found.start(1)].count("\n"), found[1]


@pytest.mark.parametrize(
    ("page", "number", "line", "source"), [pytest.param(*block, id=f"{block[0]}:{block[2]}") for block in blocks()]
)
@pytest.mark.filterwarnings("ignore:.*precision lowered by casting to float32")
def test_blocks_of_python_run(page, number, line, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__", "SHORT": SHORT}
    exec("\n".join(part.strip() for part in BEFORE.get((page, number), "").splitlines()), names)
    source = shortened(source, FEWER.get((page, number), {}))
    exec(compile("\n" * line + source, page, "exec"), names)


def test_what_is_shortened_or_prepared_is_there():
    assert {*BEFORE, *FEWER} <= {(page, number) for page, number, *_ in blocks()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text()):
        place = (page.parent / target).resolve()
        name = str(place.relative_to(ROOT))
        assert place.exists() or name.startswith(WRITTEN), f"{page.name} links {target}"
        assert not name.startswith("docs/pictures/") or place.stem in CATALOGUE, f"{target} is no problem's picture"


def anchors(page):
    """What GitHub and the site call the headings of a page; programs have none."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_anchors_are_headings(page):
    for target, anchor in re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)#([^)\s]+)\)", page.read_text()):
        place = (page.parent / target).resolve() if target else page
        assert anchor in anchors(place), f"{page.name} links {target}#{anchor}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.stem)
def test_names_and_files_that_are_mentioned_exist(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    for name in re.findall(r"`(optctl(?:\.\w+)+)", text):
        pkgutil.resolve_name(name)
    for path in re.findall(r"`((?:\w+/)+\w+\.(?:py|md|toml|ipynb|txt))`", text):
        assert (ROOT / path).exists(), f"{page.name} mentions {path}"


def test_the_site_and_its_index_for_machines_have_every_page():
    docs = ROOT / "docs"
    pages = {str(page.relative_to(docs).with_suffix("")) for page in docs.rglob("*.md")} - {"index"}
    tables = re.findall(r"^```{toctree}\n(?::[^\n]*\n)*(.*?)^```", (docs / "index.md").read_text(), re.M | re.S)
    assert sorted(line for table in tables for line in table.split()) == sorted(pages)
    listed = re.findall(r"^- \[.*\]\((.*)\.html\): .+\.$", (docs / "llms.txt").read_text(), re.M)
    assert sorted(listed) == sorted(pages)


FAMILIES = {page.stem: page.read_text() for page in PAGES if page.parent.name == "families"}


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_problem_is_on_a_family_page(name):
    assert any(f"`{name}`" in text for text in FAMILIES.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_family_pages_are_complete(family):
    """Pictures, equations, facts that are checked, sources, and who has a view as a team."""
    text = FAMILIES[family]
    assert "](../pictures/" in text and "../gallery.md" in text
    for part in (r"'' =|' =|Hamiltonian|γẋ", r"Known (answers|facts|optima)", r"Source|source", r"as a team|As a team"):
        assert re.search(part, text), part

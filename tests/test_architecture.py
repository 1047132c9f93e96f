"""Who may import whom, and what must stay cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {"torch", "ray", "torchvision", "timm"}


def imports_of(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_imports_go_one_way():
    files = list((ROOT / "trainable").glob("*.py"))
    assert len(files) > 10
    for file in files:
        back = {name for name in imports_of(file) if name.split(".")[0] == "search"}
        assert not back, f"{file.name} imports {back}"


def test_only_the_trial_knows_ray_on_its_side():
    knows = [f.name for f in (ROOT / "trainable").glob("*.py") if any(n.split(".")[0] == "ray" for n in imports_of(f))]
    assert knows == ["trial.py"]


@pytest.mark.parametrize("name", ["utils", "util", "helpers", "helper", "common", "base", "manager", "misc"])
def test_no_file_is_named_after_nothing(name):
    assert not list(ROOT.glob(f"*/{name}.py"))


@pytest.mark.parametrize(
    "code",
    [
        "import search.run; search.run.main(['--help'])",
        "import search.report; search.report.main(['--help'])",
        "import search.predict; search.predict.main(['--help'])",
        "import search.export; search.export.main(['--help'])",
        "import search.run; search.run.main(['--space', 'default.yaml', '--set', 'space.lr.low=0', '--plan'])",
        "import search.run; search.run.main(['--space', 'default.yaml', '--data', 'no/such/folder'])",
        "import search.results",
        "import search.card, search.figures, search.page, search.verdict",
    ],
)
def test_help_and_mistakes_and_finished_runs_import_neither_torch_nor_ray(code):
    script = f"""
import sys
try:
    {code}
except SystemExit:
    pass
print("loaded:", sorted({{name.split(".")[0] for name in sys.modules}} & {HEAVY!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "loaded: []", done.stderr


def test_what_rays_workers_import_at_their_start_is_there_and_brings_what_a_trial_needs():
    from search.cluster import _ENVIRONMENT

    script = f"import sys, {_ENVIRONMENT['RAY_preload_python_modules']}; print('trainable.trial' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "True\n"

"""The rules of the house: who may import whom, no circles, no probe named below the probes, the cost of a start.

The table of rooms stands in `docs/development.md` in words. Imports for types alone count like any other.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

import pytest_overfit
from pytest_overfit.probes import built_in

ROOT = Path(pytest_overfit.__file__).parent
MODULES = {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.rglob("*.py"))}

FRAMEWORKS = ("torch", "tensorflow", "keras", "jax", "sklearn")

#: room or file -> what else of this package it may import, for types as well; the most specific entry counts
ALLOWED: dict[str, tuple[str, ...]] = {
    "__init__.py": ("core", "duplicates.find", "fixture", "run", "selftest", "version"),
    "__main__.py": ("baselines", "core", "report"),
    "version.py": (),
    "plugin.py": ("baselines", "core", "fixture", "hookspecs", "options", "report", "run", "settings", "__init__"),
    "options.py": ("baselines", "core", "report", "selftest.session", "settings"),
    "hookspecs.py": ("adapters.base", "core", "data.batch", "diagnosis.hypotheses", "probes.base"),
    "fixture.py": ("core", "report.text", "run", "settings"),
    "run.py": (
        "adapters.base",
        "adapters.dispatch",
        "adapters.trainer",
        "core",
        "data",
        "diagnosis",
        "probes",
        "settings",
    ),
    "settings.py": ("adapters.base", "core", "probes"),
    "testing.py": ("adapters.base", "adapters.trainer", "core"),
    "selftest": (
        "adapters.dispatch",
        "adapters.planting",
        "adapters.programs",
        "core",
        "data",
        "fixture",
        "run",
        "settings",
    ),
    "properties": ("adapters.base", "adapters.dispatch", "core", "data", "run", "settings"),
    "strategies.py": ("adapters.dispatch", "core", "data", "properties", "run", "settings"),
    "core": (),
    "data": ("core",),
    "adapters": ("core", "data"),
    "adapters/torch": ("adapters", "core", "data"),
    "adapters/keras": ("adapters", "core", "data"),
    "duplicates": ("core", "data.containers", "data.rereading", "data.tree"),
    # called without pytest, it shows its own progress and, in a notebook, its pictures
    "duplicates/find.py": ("core", "duplicates", "report.pictures", "report.progress"),
    "diagnosis": ("adapters.base", "adapters.programs", "core", "measures"),
    "measures": ("adapters.base", "adapters.trainer", "core", "data"),
    "probes/__init__.py": ("probes.base",),
    "probes/base.py": ("adapters.base", "adapters.trainer", "core", "data"),
    **{f"probes/{name}": ("adapters", "core", "data", "duplicates", "measures", "probes.base") for name in built_in()},
    "baselines": ("core", "report", "version"),
    "report": ("core.errors", "core.figures", "core.verdict", "version"),
}
#: never, although the room around it is allowed
FORBIDDEN = {
    "adapters/torch": ("adapters.keras",),
    "adapters/keras": ("adapters.torch",),
    "probes": ("adapters.torch", "adapters.keras"),
}
#: rooms that know nothing of which probes there are
BELOW_THE_PROBES = ("core", "data", "measures", "adapters", "diagnosis", "report", "baselines")


class Import(NamedTuple):
    """One imported name: as it is written, where, and inside which functions."""

    name: str
    line: int
    functions: list[str]


def imports(source: str) -> Iterator[Import]:
    """Every import of a file, those for types included."""

    def walk(node: ast.AST, functions: list[str]) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, functions) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the whole name of the module"
            yield from (Import(f"{node.module}.{alias.name}", node.lineno, functions) for alias in node.names)
        inside = [*functions, node.name] if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else functions
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside)

    yield from walk(ast.parse(source), [])


def room(module: str) -> str:
    """The most specific entry of the table."""
    found = [entry for entry in ALLOWED if module == entry or module.startswith(f"{entry}/")]
    assert found, f"{module}: write down in ALLOWED what it may import"
    return max(found, key=len)


def home(name: str) -> str | None:
    """The file that an imported name of ours comes from: `data/tree.py` for pytest_overfit.data.tree.flat."""
    parts = name.split(".")
    if parts[0] != "pytest_overfit":
        return None
    for count in range(len(parts), 0, -1):
        path = "/".join(parts[1:count])
        for file in (f"{path}.py", f"{path}/__init__.py".lstrip("/")):
            if file in MODULES:
                return file
    raise AssertionError(f"{name}: there is no such module")


def within(file: str, entry: str) -> bool:
    """Whether a file is, or lies in, what an entry such as `data.tree` names."""
    path = entry.replace(".", "/")
    return file in (f"{path}.py", path) or file.startswith(f"{path}/")


def violations(module: str, source: str) -> list[str]:
    """What this file imports and may not."""
    where = room(module)
    allowed = [*ALLOWED[where], *([] if where.endswith(".py") else [where.replace("/", ".")])]
    forbidden = [entry for place, entries in FORBIDDEN.items() if within(module, place) for entry in entries]
    found = []
    for imported in imports(source):
        file = home(imported.name)
        if file is None or file == module:
            continue
        if not any(within(file, entry) for entry in allowed) or any(within(file, entry) for entry in forbidden):
            found.append(f"{module}:{imported.line} imports {imported.name}; {where} may import {', '.join(allowed)}")
    return found


@pytest.fixture(params=MODULES)
def module(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def source_of(module: str) -> str:
    return MODULES[module].read_text(encoding="utf-8")


def test_only_the_plugin_imports_pytest(module: str) -> None:
    if module in ("plugin.py", "hookspecs.py", "options.py"):
        return
    for name, line, functions in imports(source_of(module)):
        if name.split(".")[0] in ("pytest", "_pytest", "pluggy"):
            types_only = (module, functions) == ("fixture.py", [])
            inside = (module, functions) == ("fixture.py", ["parametrize_with_probes"])
            assert inside or types_only, f"{module}:{line} imports {name}"


def test_only_its_adapter_imports_a_framework(module: str) -> None:
    for name, line, _ in imports(source_of(module)):
        top = name.split(".")[0]
        if top in FRAMEWORKS:
            own = "keras" if top == "tensorflow" else top
            assert module.startswith(f"adapters/{own}/"), f"{module}:{line} imports {name}"


def test_rooms_import_what_the_table_allows(module: str) -> None:
    assert violations(module, source_of(module)) == []


#: an import that each row of the table must refuse
BROKEN = {
    "__init__.py": "report.text",
    "__main__.py": "run",
    "version.py": "core.errors",
    "plugin.py": "probes.base",
    "options.py": "fixture",
    "hookspecs.py": "run",
    "fixture.py": "probes.base",
    "run.py": "report.text",
    "settings.py": "run",
    "testing.py": "run",
    "selftest": "probes.base",
    "properties": "probes.base",
    "strategies.py": "measures.training_runs",
    "core": "data.tree",
    "data": "adapters.base",
    "adapters": "measures.training_runs",
    "adapters/torch": "adapters.keras.learner",
    "adapters/keras": "adapters.torch.learner",
    "duplicates": "data.splits",
    "duplicates/find.py": "report.text",
    "diagnosis": "probes.base",
    "measures": "probes.base",
    "probes/__init__.py": "measures.training_runs",
    "probes/base.py": "measures.training_runs",
    **{f"probes/{name}": "report.text" for name in built_in()},
    "baselines": "probes.base",
    "report": "core.case",
}


@pytest.mark.parametrize("row", ALLOWED)
def test_each_row_refuses_an_import(row: str) -> None:
    """Broken on purpose: a check that cannot fail is none."""
    module = row if row.endswith(".py") else next(name for name in MODULES if name.startswith(f"{row}/"))
    planted = f"def lazily():\n    from pytest_overfit import {BROKEN[row]}\n".replace(
        f"from pytest_overfit import {BROKEN[row]}", f"import pytest_overfit.{BROKEN[row]}"
    )
    assert len(violations(module, planted)) == 1
    guarded = f"if TYPE_CHECKING:\n    import pytest_overfit.{BROKEN[row]}\n"
    assert len(violations(module, guarded)) == 1


def test_no_probe_imports_another() -> None:
    for first in built_in():
        for second in built_in():
            module = f"probes/{first}/__init__.py"
            planted = f"from pytest_overfit.probes.{second} import PROBE\n"
            assert len(violations(module, planted)) == (first != second)


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of files that import each other, directly or through others (Tarjan's strong components)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(file: str) -> None:
        order[file] = low[file] = len(order)
        stack.append(file)
        for other in sorted(graph.get(file, ())):
            if other not in order:
                visit(other)
                low[file] = min(low[file], low[other])
            elif other in stack:
                low[file] = min(low[file], order[other])
        if low[file] == order[file]:
            group = stack[stack.index(file) :]
            del stack[stack.index(file) :]
            if len(group) > 1:
                found.append(sorted(group))

    for file in graph:
        if file not in order:
            visit(file)
    return found


def test_no_circle_of_imports() -> None:
    """Between files, imports inside functions and for types included."""
    graph = {module: {home(each.name) for each in imports(source_of(module))} - {None, module} for module in MODULES}
    assert circles({module: {str(file) for file in files} for module, files in graph.items()}) == []


def test_a_circle_would_be_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def words_of(source: str) -> Iterator[tuple[int, str]]:
    """Every name and string of a file, but docstrings and comments."""
    tree = ast.parse(source)
    prose = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.lineno, node.value
        elif isinstance(node, (ast.Name, ast.Attribute)):
            yield node.lineno, node.id if isinstance(node, ast.Name) else node.attr


@pytest.mark.parametrize("module", [name for name in MODULES if name.split("/")[0] in BELOW_THE_PROBES])
def test_rooms_below_do_not_name_a_probe(module: str) -> None:
    """A new probe needs no edit elsewhere."""
    names = re.compile(rf"\b({'|'.join(name for name in built_in() if '_' in name)})\b")
    found = [f"{module}:{line}: {word!r}" for line, word in words_of(source_of(module)) if names.search(word)]
    assert found == []


def test_one_meaning_a_name() -> None:
    """No public class has the name of another one."""
    homes: dict[str, list[str]] = {}
    for module in MODULES:
        for node in ast.parse(source_of(module)).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(module)
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}


HEAVY = (
    "numpy",
    "torch",
    "tensorflow",
    "keras",
    "jax",
    "hypothesis",
    "sklearn",
    "scipy",
    "pandas",
    "jinja2",
    "matplotlib",
)


def test_start_up_imports_nothing_heavy(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makepyfile(
        f"""
        import sys
        import pytest

        def test_it(request):
            assert request.config.pluginmanager.hasplugin("pytest_overfit.plugin")
            assert [name for name in {HEAVY!r} if name in sys.modules] == []

        def test_the_name_of_a_case_costs_nothing_either():
            from pytest_overfit import Case, Overfit, ProbeFailed, Verdict, parametrize_with_probes, run_probes

            Case(name="mlp", model=object, batch=lambda: None)
            assert [name for name in {HEAVY!r} if name in sys.modules] == []
        """
    )
    result = pytester.runpytest_subprocess("-p", "pytest_overfit.plugin", "--disable-plugin-autoload")
    result.assert_outcomes(passed=2)


def test_start_up_loads_few_modules_of_ours(tmp_path: Path) -> None:
    """What every start of pytest pays for, also in a repository without a model."""
    program = """
        import sys, pytest
        pytest.main(["-qq", "--collect-only", "--disable-plugin-autoload", "-p", "pytest_overfit.plugin"])
        print(sorted(name for name in sys.modules if name.startswith("pytest_overfit")), file=sys.stderr)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert ast.literal_eval(done.stderr.splitlines()[-1]) == [
        "pytest_overfit",
        "pytest_overfit.core",
        "pytest_overfit.core.errors",
        "pytest_overfit.hookspecs",
        "pytest_overfit.options",
        "pytest_overfit.plugin",
        "pytest_overfit.settings",
        "pytest_overfit.version",
    ]


def test_modules_are_small_and_have_nothing_to_rewrite(module: str) -> None:
    """pytest rewrites the asserts of a plugin, and warns where the modules it names were imported before."""
    text = source_of(module)
    if module in ("__init__.py", "plugin.py"):
        assert "PYTEST_DONT_REWRITE" in (ast.get_docstring(ast.parse(text)) or "")
    assert not [node.lineno for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Assert)]
    most = 300 if module == "plugin.py" else 320
    assert text.count("\n") <= most


def test_hooks_are_short() -> None:
    for node in ast.walk(ast.parse(source_of("plugin.py"))):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("pytest_"):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]
            assert lines <= 15, f"{node.name} has {lines} lines"


def test_public_names_are_never_collected() -> None:
    for name in pytest_overfit.__all__:
        assert not name.lower().startswith("test")
    from pytest_overfit import testing

    names = [name for name in vars(testing) if not name.startswith("_")]
    assert not [name for name in names if name.lower().startswith("test")]

"""The four rules of the layout: who may import what, and what a start of pytest costs."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytest_overfit

ROOT = Path(pytest_overfit.__file__).parent
MODULES = {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.rglob("*.py"))}

FRAMEWORKS = ("torch", "tensorflow", "keras", "jax", "sklearn")

#: module or package -> what of this package it may import at run time; the most specific entry counts
ALLOWED: dict[str, tuple[str, ...]] = {
    "__init__.py": ("core", "fixture"),
    "__main__.py": ("core", "report"),
    "plugin.py": ("core", "fixture", "report", "hookspecs", "options"),
    "options.py": ("core", "report"),
    "hookspecs.py": (),
    "fixture.py": ("core", "report"),
    "testing.py": ("adapters.base", "adapters.training", "core"),
    "properties.py": ("core", "adapters.dispatch", "data", "measures"),
    "strategies.py": ("core", "adapters.dispatch", "data"),
    "core/run.py": ("core", "adapters.dispatch", "data", "probes"),
    "core/settings.py": ("probes",),
    "core/listing.py": ("probes",),
    "core": ("core",),
    "probes": ("probes", "measures", "diagnosis", "data", "adapters", "core"),
    "diagnosis": ("diagnosis", "measures", "data", "adapters", "core"),
    "measures": ("measures", "data", "adapters.base", "adapters.training", "core"),
    # called without pytest, it shows its own progress and, in a notebook, its pictures
    "data/duplicates.py": ("data", "core", "report.progress", "report.pictures"),
    "data": ("data", "core"),
    "adapters/torch": ("adapters.torch", "adapters.base", "adapters.training", "data", "core"),
    "adapters/keras": ("adapters.keras", "adapters.base", "adapters.training", "data", "core"),
    "adapters": ("adapters", "data", "core"),
    "report": ("report", "core.verdict", "core.errors", "__version__"),
}


def layer(module: str) -> str:
    """The most specific entry of the table."""
    found = [each for each in ALLOWED if module == each or module.startswith(f"{each}/")]
    assert found, f"{module}: write down in ALLOWED what it may import"
    return max(found, key=len)


def imports(path: Path) -> Iterator[tuple[str, int, list[str]]]:
    """Every import that happens at run time: its full name, its line, and the functions around it."""

    def walk(node: ast.AST, functions: list[str]) -> Iterator[tuple[str, int, list[str]]]:
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for each in node.orelse:
                yield from walk(each, functions)
            return
        if isinstance(node, ast.Import):
            yield from ((each.name, node.lineno, functions) for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the whole name of the module"
            yield from ((f"{node.module}.{each.name}", node.lineno, functions) for each in node.names)
        inside = [*functions, node.name] if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else functions
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), [])


@pytest.fixture(params=MODULES)
def module(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_only_the_plugin_imports_pytest(module: str) -> None:
    if module in ("plugin.py", "hookspecs.py"):
        return
    for name, line, functions in imports(MODULES[module]):
        if name.split(".")[0] in ("pytest", "_pytest", "pluggy"):
            assert (module, functions) == ("fixture.py", ["parametrize_with_probes"]), f"{module}:{line} imports {name}"


def test_only_its_adapter_imports_a_framework(module: str) -> None:
    for name, line, functions in imports(MODULES[module]):
        top = name.split(".")[0]
        if top in FRAMEWORKS:
            own = "keras" if top == "tensorflow" else top
            inside = module.startswith(f"adapters/{own}/") or module == f"adapters/{own}.py"
            assert inside, f"{module}:{line} imports {name}"
        elif top == "numpy":
            package = module.startswith(("adapters/torch/", "adapters/keras/"))
            assert functions or package, f"{module}:{line} imports numpy outside a function"


def test_arrows_point_one_way(module: str) -> None:
    where = layer(module)
    for name, line, _ in imports(MODULES[module]):
        if name.split(".")[0] != "pytest_overfit":
            continue
        wanted = name.removeprefix("pytest_overfit").lstrip(".")
        good = any(wanted == each or wanted.startswith(f"{each}.") for each in ALLOWED[where])
        assert good, f"{module}:{line} imports {name}; {where} may import {', '.join(ALLOWED[where]) or 'nothing'} only"


def test_arrows_have_no_cycle_between_packages() -> None:
    """`core.run`, `core.settings` and `core.listing` are the doors from the plain types up to the probes."""
    doors = ("core/run.py", "core/settings.py", "core/listing.py", "__init__.py")
    order = ["report", "core", "data", "adapters", "measures", "diagnosis", "probes"]
    for where, allowed in ALLOWED.items():
        package = where.split("/")[0]
        if package in order and where not in doors:
            for each in allowed:
                lower = each.split(".")[0]
                exempt = package == "report" and each in ("core.verdict", "core.errors", "__version__")
                assert exempt or order.index(lower) <= order.index(package), f"{where} -> {each}"


HEAVY = ("numpy", "torch", "tensorflow", "keras", "jax", "hypothesis", "sklearn", "scipy", "pandas")


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

            parametrize_with_probes([Case(name="mlp", model=object, batch=lambda: None)])
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
        "pytest_overfit.settings",
        "pytest_overfit.hookspecs",
        "pytest_overfit.options",
        "pytest_overfit.plugin",
        "pytest_overfit.report",
        "pytest_overfit.report.progress",
    ]


def test_modules_are_small_and_not_rewritten(module: str) -> None:
    text = MODULES[module].read_text(encoding="utf-8")
    assert "PYTEST_DONT_REWRITE" in (ast.get_docstring(ast.parse(text)) or ""), "pytest would rewrite its asserts"
    most = 300 if module == "plugin.py" else 320
    assert text.count("\n") <= most


def test_hooks_are_short() -> None:
    for node in ast.walk(ast.parse(MODULES["plugin.py"].read_text(encoding="utf-8"))):
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

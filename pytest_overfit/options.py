"""Options and ini values of the plugin: declared, read and checked, without pytest itself."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any

from pytest_overfit.core.errors import CaseError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pytest

    from pytest_overfit.baselines.compare import Baselines
    from pytest_overfit.core.calibration import Calibration
    from pytest_overfit.report.json_file import JsonReport
    from pytest_overfit.selftest.session import SelfTestSession

_SEED = "seed of the probes, a whole number; a verdict that did not pass names the one that was used"
_INI = ("overfit_seed", "overfit_budget", "overfit_limits", "overfit_storage")
#: the name of a baseline where none is given (`report.baseline_files.NAME`)
_NAME = "baseline"
#: the folder of calibrations in the storage of baselines
_CALIBRATED = "calibrated"


def add_options(parser: pytest.Parser) -> None:
    """Declare every option and ini value."""
    group = parser.getgroup("overfit", "pytest-overfit: can the model learn?")
    group.addoption("--overfit-json", metavar="PATH", help="write all verdicts as JSON to this file")
    group.addoption("--overfit-seed", metavar="N", help=_SEED + "; wins over case and ini")
    group.addoption(
        "--overfit-diagnose",
        choices=("auto", "always", "never"),
        default="auto",
        help="find out why by changing one thing and training again: auto, where a verdict is failed or inconclusive",
    )
    group.addoption(
        "--overfit-selftest",
        nargs="?",
        const="plain",
        choices=("plain", "all"),
        help="plant faults in the cases of this run, and show which of them their probes catch; all: also probes that "
        "train repeatedly",
    )
    group.addoption("--overfit-quantities", action="store_true", help="list what `overfit.within` can bound, and exit")
    name: dict[str, Any] = {"metavar": "NAME", "nargs": "?", "const": _NAME}
    group.addoption("--overfit-save", **name, help=f"save the numbers of verdicts that passed (default: {_NAME})")
    group.addoption("--overfit-compare", **name, help=f"compare with saved numbers (default: {_NAME})")
    group.addoption(
        "--overfit-compare-fail",
        action="append",
        default=[],
        metavar="QUANTITY:AMOUNT",
        help="fail what became worse by more than this: steps_to_memorise:50%%, val_score:0.02; several may be given",
    )
    group.addoption(
        "--overfit-calibrate",
        action="store_true",
        help="measure the bounds that are written as `calibrated`, on new seeds, and keep them with the baselines",
    )
    parser.addini("overfit_seed", f"{_SEED} (default 0)", type="int", default=0)
    parser.addini("overfit_budget", "seconds that a probe may train (default: no limit)", type="float", default=None)
    parser.addini("overfit_limits", "limits, 'limit = number' or 'probe.limit = number' a line", type="linelist")
    parser.addini("overfit_storage", "folder of baselines and calibrations, from the root", default=".overfit")


def ini(config: pytest.Config, name: str) -> Any:
    """An ini value, or a `CaseError` where it is of another type."""
    try:
        return config.getini(name)
    except Exception as error:
        raise CaseError(f"ini {name}: {error}") from None


def ini_limits(config: pytest.Config) -> Mapping[str, Any]:
    """Limits of the ini file; names that begin like ours but are not known are refused with the nearest one."""
    overridden = [str(each).partition("=")[0].strip() for each in config.getoption("override_ini", None) or ()]
    with warnings.catch_warnings():  # pytest 9.2 has no other way to see names that nobody registered
        warnings.simplefilter("ignore")
        written = list(getattr(config, "inicfg", ()))
    for name in (*written, *overridden):
        if name.startswith("overfit") and name not in _INI:
            raise CaseError(f"ini: unknown option {name!r}{did_you_mean(name, _INI)}")
    budget, lines = ini(config, "overfit_budget"), ini(config, "overfit_limits")
    limits = {} if budget is None else {"budget": budget}
    if lines:
        from pytest_overfit.core.limits import parse_ini

        limits |= parse_ini(lines)
    return limits


def seed(text: Any, where: str) -> int | None:
    """A seed, or a `CaseError`."""
    if text is None:
        return None
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise CaseError(f"{where}: expected a whole number of 0 or more, got {text}")
    return value


def on_terminal(config: pytest.Config) -> bool:
    """True where a person watches: a terminal, not a CI log, not an xdist worker."""
    stream = sys.__stdout__
    if hasattr(config, "workerinput") or stream is None or not stream.isatty():
        return False
    from pytest_overfit.report.progress import is_watched  # a start without a terminal does not load it

    return is_watched(stream)


def json_report(config: pytest.Config) -> JsonReport | None:
    """The file that was asked for; a worker of xdist writes nothing."""
    given = config.getoption("overfit_json")
    if given is None or hasattr(config, "workerinput"):
        return None
    from pytest_overfit.report.json_file import JsonReport

    return JsonReport(given, config.invocation_params.dir)


def last_lines(report: JsonReport | None, count: int, troubles: list[str]) -> list[str]:
    """Where the verdicts are, and what went wrong outside any test, each once."""
    lines = list(dict.fromkeys(troubles))
    if report is not None:
        lines += [f"{count} verdict{'s' * (count != 1)} in {report.path}"] * report.written + report.lines
    return [f"overfit: {each}" for each in lines]


def added(hook: Callable[[], list[Any]], name: str) -> tuple[Any, ...]:
    """What conftests and plugins return for a hook that gives a list."""
    try:
        returned = hook()
    except Exception as error:
        raise CaseError(f"hook {name}: raised {type(error).__name__}: {error}") from error
    for each in returned:
        if not isinstance(each, (list, tuple)):
            raise CaseError(f"hook {name}: expected a list, got {type(each).__name__}; return a list, also of one")
    return tuple(each for found in returned for each in found)


def which(forms: Sequence[Mapping[str, Any]], form: Mapping[str, Any]) -> str:
    """Tells this verdict from earlier ones of its case and probe in one test; "" for the first."""
    count = sum((each["case"], each["probe"]) == (form["case"], form["probe"]) for each in forms)
    return f".{count}" if count > 1 else ""


def keyed(report: Any) -> dict[tuple[str, str, str, str, str], dict[str, Any]]:
    """The verdicts and errors on a report, by what makes each of them one of its own."""
    forms = [each for each in getattr(report, "overfit", ()) if "selftest" not in each]
    place = report.nodeid, report.when or ""
    return {
        (*place, form["case"], form["probe"], which(forms[:number], form)): form
        for number, form in enumerate(forms, 1)
    }  # fmt: skip


def never_probed(collector: Any, name: str, obj: object) -> str:
    """Why a marker on what is being collected would have no effect: unittest and loops run these tests themselves."""
    unittest, inspect = sys.modules.get("unittest"), sys.modules.get("inspect")
    if unittest is not None and isinstance(obj, type) and issubclass(obj, unittest.TestCase):
        methods = [each for each in map(obj.__dict__.get, dir(obj)) if callable(each)]
        if collector.get_closest_marker("overfit") or any(map(_is_marked, (obj, *methods))):
            where = "a unittest.TestCase returns no case to pytest; write a plain class or function"
            return f"{collector.nodeid}::{name}: the marker overfit has no effect here: {where}"
    marked = _is_marked(obj) or (name.startswith("test") and collector.get_closest_marker("overfit"))
    if marked and inspect is not None and (inspect.iscoroutinefunction(obj) or inspect.isasyncgenfunction(obj)):
        return f"{collector.nodeid}::{name}: expected a function that returns a Case, got an async one; write def"
    return ""


def _is_marked(obj: object) -> bool:
    marks = getattr(obj, "pytestmark", ())
    return any(getattr(each, "name", "") == "overfit" for each in (marks if isinstance(marks, list) else [marks]))


def tell(hook: Callable[..., object], troubles: list[str], **what: object) -> None:
    """Call a hook that only listens: what it raises costs no verdict and no test."""
    try:
        hook(**what)
    except Exception as error:
        if type(error).__module__ == "_pytest.outcomes":  # pytest.exit; what knows it is not loaded at the start
            raise
        troubles.append(f"hook {getattr(hook, 'name', 'of a plugin')} raised {type(error).__name__}: {error!s:.200}")


def baselines(config: pytest.Config) -> Baselines | None:
    """What saves and compares; None where neither was asked for."""
    save_as, compare_with = config.getoption("overfit_save"), config.getoption("overfit_compare")
    rules = config.getoption("overfit_compare_fail")
    if save_as is None and compare_with is None and not rules:
        return None
    from pytest_overfit.baselines.compare import Baselines

    worker = hasattr(config, "workerinput")
    storage, here = config.rootpath / ini(config, "overfit_storage"), config.invocation_params.dir
    found = Baselines(storage, here, save_as, compare_with, rules, worker)
    if not worker:  # a worker's reports go through the controller's hooks
        config.pluginmanager.register(found, "overfit-baselines")
    return found


def selftest(config: pytest.Config, attach: Callable[[dict[str, Any]], None]) -> SelfTestSession | None:
    """What plants faults in cases; None where it was not asked for."""
    asked = config.getoption("overfit_selftest")
    if asked is None:
        return None
    from pytest_overfit.selftest.session import SelfTestSession

    found = SelfTestSession(asked == "all", attach)
    config.pluginmanager.register(found, "overfit-selftest")
    return found


def calibration(config: pytest.Config, command: Callable[[], str]) -> Callable[[], Calibration]:
    """Makes what reads calibrated bounds; `command`: how to run the current test alone."""
    folder, now = config.rootpath / ini(config, "overfit_storage") / _CALIBRATED, config.getoption("overfit_calibrate")
    if now:
        from pytest_overfit.baselines.calibrations import Calibrations

        worker = hasattr(config, "workerinput")
        writer = Calibrations(folder, worker)
        if not worker:  # a worker's reports go through the controller's hooks
            config.pluginmanager.register(writer, "overfit-calibrations")

    def make() -> Calibration:
        from pytest_overfit.baselines.calibrations import read_entries
        from pytest_overfit.core.calibration import Calibration

        return Calibration(
            now=now,
            read=lambda case: read_entries(folder, case),
            path=lambda case: str(folder / f"{case}.json"),
            command=lambda: f"{command() or 'pytest'} --overfit-calibrate",
        )

    return make

"""The pytest plugin: options, ini, marker, fixture and hooks, and nothing else.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from pytest_overfit import options
from pytest_overfit.core.errors import CaseError, NotApplicable, OverfitError, ProbeFailed
from pytest_overfit.settings import Settings, set_settings

if TYPE_CHECKING:
    from collections.abc import Generator

    from pytest_overfit.core.verdict import Verdict
    from pytest_overfit.fixture import Overfit
    from pytest_overfit.report.progress import ProgressLine

_MARKER = (
    "overfit(*probes, **limits): the test returns a pytest_overfit.Case; each probe (default: cheap ones) becomes a "
    "test of its own, with these limits"
)
#: the parameter that carries the probe of a marked test
_PROBE = "overfit_probe"
_FORMS: pytest.StashKey[list[dict[str, Any]]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    options.add_options(parser)


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    if not config.getoption("overfit_quantities"):
        return None
    from pytest_overfit.run import quantity_lines

    sys.stdout.write("\n".join([*quantity_lines(), ""]))
    return 0


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from pytest_overfit import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARKER)
    try:
        run = OverfitRun(config)
    except CaseError as error:
        raise pytest.UsageError(str(error)) from None
    config.pluginmanager.register(run, "overfit-run")


@pytest.fixture(scope="session")
def overfit() -> Overfit:
    """Run probes on a case: `overfit.batch(case, max_loss_ratio=0.02)` raises unless the model memorises one batch."""
    from pytest_overfit.fixture import Overfit

    return Overfit()


def pytest_pycollect_makeitem(collector: pytest.Collector, name: str, obj: object) -> None:
    if why := options.never_probed(collector, name, obj):
        pytest.fail(why, pytrace=False)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    mark = metafunc.definition.get_closest_marker("overfit")
    if mark is None:
        return
    names = _marked_probes(mark)
    if isinstance(names, CaseError):  # raised here, outside `except`, so that it is shown once
        pytest.fail(f"{metafunc.definition.nodeid}: {names}", pytrace=False)
    metafunc.fixturenames.append(_PROBE)
    metafunc.parametrize(_PROBE, names, ids=names)


def _marked_probes(mark: pytest.Mark) -> list[str] | CaseError:
    """The probes a marker names, or the default set; its limits are checked here, at collection."""
    from pytest_overfit.core.limits import check_limits
    from pytest_overfit.run import default_probes, probes_named

    try:
        probes = probes_named(mark.args) if mark.args else default_probes()
        check_limits(mark.kwargs, {each.name: each.limits for each in probes}, "marker")
    except CaseError as error:
        return error
    return [each.name for each in probes]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    __tracebackhide__ = True
    mark = pyfuncitem.get_closest_marker("overfit")
    probe = pyfuncitem.callspec.params.get(_PROBE) if hasattr(pyfuncitem, "callspec") else None
    if mark is None or probe is None:
        return None
    from pytest_overfit.fixture import call_marked

    call_marked(pyfuncitem.obj, pyfuncitem.funcargs, str(probe), mark.kwargs)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    error = call.excinfo.value if call.excinfo is not None else None
    ours = isinstance(error, (ProbeFailed, OverfitError))
    if ours:
        from pytest_overfit.report.failures import hide_our_frames, shorten
    alone = ours and hide_our_frames(item, call)
    report = yield
    if isinstance(error, NotApplicable):
        report.outcome, report.longrepr = "skipped", (str(item.path), (item.location[1] or 0) + 1, f"Skipped: {error}")
        report.overfit_counted = _of_the_default_set(item)  # type: ignore[attr-defined]
    elif ours and report.failed:
        shorten(report, call, alone)
    _attach_all(item, report)
    return report


def _attach_all(item: pytest.Item, report: pytest.TestReport) -> None:
    forms = item.stash.get(_FORMS, [])
    if forms:
        from pytest_overfit.report.attach import attach

        attach(report, forms, html=bool(item.config.getoption("htmlpath", None)))
        forms.clear()


def _of_the_default_set(item: pytest.Item) -> bool:
    """A marker without names asked for no probe in particular: one that does not apply is no test that was skipped."""
    mark = item.get_closest_marker("overfit")
    return mark is not None and not mark.args


def pytest_report_teststatus(report: pytest.CollectReport | pytest.TestReport) -> tuple[str, str, str] | None:
    """What does not apply, of a default set, is counted in our section, not skip by skip in pytest's."""
    return ("", "-", "NOT APPLICABLE") if getattr(report, "overfit_counted", False) and report.skipped else None


class OverfitRun:
    """One test run: the settings of its probes, and all verdicts, collected where pytest reports."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.item: pytest.Item | None = None
        self.json = options.json_report(config)
        #: what a person should know of hooks that raised, a line each
        self.troubles: list[str] = []
        #: test, phase, case, probe and how many-th of them -> plain form; a rerun replaces it and counts the attempt
        self.forms: dict[tuple[str, str, str, str, str], dict[str, Any]] = {}
        #: those of them whose tests failed as declared
        self.expected: set[tuple[str, str, str, str, str]] = set()
        #: made when a probe first reports how far it is, where a person watches: during a test output is captured
        self.progress: ProgressLine | None = None
        self.watched = options.on_terminal(config)
        hook = config.hook
        self.settings = Settings(
            seed=options.seed(config.getoption("overfit_seed"), "--overfit-seed"),
            default_seed=options.seed(options.ini(config, "overfit_seed"), "ini overfit_seed") or 0,
            ini=options.ini_limits(config),
            extra_probes=options.added(hook.pytest_overfit_probes, "pytest_overfit_probes"),
            make_learner=lambda case, batch, seed: hook.pytest_overfit_make_learner(case=case, batch=batch, seed=seed),
            record=self._record,
            record_error=self._record_error,
            progress=self._progress,
            command=self._command,
            calibration=options.calibration(config, self._command),
            diagnose=config.getoption("overfit_diagnose"),
            extra_families=options.added(hook.pytest_overfit_diagnosis_families, "pytest_overfit_diagnosis_families"),
            selftest=options.selftest(config, self._attach),
        )
        if self.settings.ini or self.settings.extra_probes or self.settings.extra_families:
            from pytest_overfit.run import check_settings

            check_settings(self.settings)
        self.baselines = options.baselines(config)
        self._reset = set_settings(self.settings)

    def pytest_unconfigure(self) -> None:
        self._reset()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self.item = item
        try:
            return (yield)
        finally:
            self._clear()
            self.item = None

    def _progress(self, case: str, probe: str, step: int, of: int | None, loss: float | None) -> None:
        if self.watched and self.progress is None:
            from pytest_overfit.report.progress import ProgressLine

            self.progress = ProgressLine(self._write, time.monotonic, self._room)
        if self.progress is not None:
            self.progress(case, probe, step, of, loss)

    def _clear(self) -> None:
        if self.progress is not None:
            self.progress.clear()

    def _record(self, verdict: Verdict) -> None:
        self._clear()
        if self.item is not None:
            form = verdict.to_dict()
            if self.baselines is not None:
                probe = self.settings.probes()[verdict.probe]
                self.baselines.compare(form, probe.numbers(verdict), self._command())
            self._attach(form)
        options.tell(self.config.hook.pytest_overfit_verdict, self.troubles, verdict=verdict)

    def _record_error(self, case: str, probe: str, error: OverfitError) -> None:
        from pytest_overfit.report.errors import error_form

        self._clear()
        self._attach(error_form(case, probe, error))

    def _attach(self, form: dict[str, Any]) -> None:
        """Keep a form for the test's report, and its numbers and names for JUnit; those of an earlier attempt go."""
        if self.item is not None:
            from pytest_overfit.report.junit import add_properties

            forms = self.item.stash.setdefault(_FORMS, [])
            forms.append(form)
            if "selftest" not in form:
                add_properties(self.item.user_properties, form, options.which(forms, form))

    def _command(self) -> str:
        if self.item is None:
            return ""
        seed = [] if self.settings.seed is None else [f"--overfit-seed={self.settings.seed}"]
        file, *names = self.item.nodeid.split("::")
        file = os.path.relpath(self.config.rootpath / file, self.config.invocation_params.dir)
        return shlex.join(["pytest", "::".join([file, *names]), *seed])

    def _write(self, text: str) -> None:
        capture = self.config.pluginmanager.getplugin("capturemanager")
        if capture is not None and sys.__stdout__ is not None:
            with capture.global_and_fixture_disabled():
                print(text, end="", file=sys.__stdout__, flush=True)

    def _room(self) -> int:
        """Columns that are free on the line that pytest is writing."""
        writer = self.config.get_terminal_writer()
        return writer.fullwidth - writer.width_of_current_line - 1

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        seen = options.keyed(report)
        if report.skipped and hasattr(report, "wasxfail"):
            self.expected.update(seen)
        for key, form in seen.items():
            attempts = self.forms.pop(key, {}).get("attempts", 0) + 1
            self.forms[key] = {**form, "test": report.nodeid, "attempts": attempts}
            self.forms[key].pop("numbers", None)  # for baselines, not a part of the verdict
            if self.json is not None:
                self.json.keep(key, self.forms[key])

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        verdicts = [{**form, "expected": key in self.expected} for key, form in self.forms.items() if "outcome" in form]
        if self.config.get_verbosity() < 0:
            return
        if verdicts:
            from pytest_overfit.report.summary import summary_lines

            probes = {form["probe"] for form in verdicts}
            terminalreporter.section(f"overfit: {probes.pop()}" if len(probes) == 1 else "overfit")
            width, verbose = self.config.get_terminal_writer().fullwidth - 1, self.config.get_verbosity() > 0
            for line in summary_lines(verdicts, width, verbose, self.settings.left_out):
                terminalreporter.line(line)
        for line in options.last_lines(self.json, len(verdicts), self.troubles):
            terminalreporter.line(line)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Every xdist worker collects all tests, so each has left out as many."""
        output = getattr(node, "workeroutput", {})
        self.settings.left_out = max(self.settings.left_out, output.get("overfit_left_out", 0))
        self.troubles += output.get("overfit_troubles", ())

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput.update(overfit_left_out=self.settings.left_out, overfit_troubles=self.troubles)
        if self.json is not None:
            hook = self.config.hook.pytest_overfit_update_json
            self.json.finish(list(self.forms.values()), lambda form: hook(config=self.config, document=form))

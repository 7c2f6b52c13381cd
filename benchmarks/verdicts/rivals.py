"""What pytest-overfit and other tools answer about healthy and broken torch programs: can they memorise one batch?

    pip install -c constraints.txt -e '.[examples]' lightning pytest-torch torchtest2
    OMP_NUM_THREADS=1 python -m benchmarks.verdicts.rivals

`programs.py` has the programs. How each rival is asked:

*pytest-torch*: `assert_overfits_one_batch`. In its default form it trains with an Adam of its own (1e-2, at most 200
steps) down to 5 % of the first loss; it can be given the user's optimizer.
*torchtest2*: `check_model` runs all of its checks. A loss above 10 % of the first is a warning, which lets the
model pass. `overfit_batch` alone is the check that compares. It takes the user's optimizer.
*Lightning*: `overfit_batches=1` trains and prints; it gives no answer.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from benchmarks.verdicts import programs, torchvision_import
from pytest_overfit import Case, CaseError, Verdict, run_probes

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.verdicts.programs import Program

#: where the weights start; a benchmark may set it, so that no answer hangs on one lucky start
SEED = 0


def start_at(seed: int) -> None:
    """Everybody's next model starts from this seed."""
    global SEED
    SEED = seed


def bare_loop(program: Program, steps: int) -> float:
    """The training loop by hand, with the loss printed at the end only."""
    return bare_steps(*bare_build(program), program, steps)


def bare_build(program: Program) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(SEED)
    model = program.model().train()
    return model, program.optimizer(model.parameters())


def bare_steps(model: nn.Module, optimizer: torch.optim.Optimizer, program: Program, steps: int) -> float:
    x, y = program.batch
    loss = torch.zeros(())
    for _ in range(steps):
        optimizer.zero_grad()
        loss = program.loss(model(x), y)
        loss.backward()
        optimizer.step()
    return float(loss.detach())


# ------------------------------------------------------------------------------------------------- ours


def case_of(program: Program) -> Case:
    name = "".join(each if each.isalnum() else "_" for each in program.name)
    return Case(
        name=name, model=program.model, loss=program.loss, optimizer=program.optimizer, batch=program.batch, seed=SEED
    )


def ours(program: Program) -> Verdict:
    (verdict,) = run_probes(case_of(program), ["overfit_batch"])
    return verdict


def our_answer(program: Program) -> str:
    """The outcome, or that the case was refused before anything was trained."""
    try:
        verdict = ours(program)
    except CaseError:
        return "refused, with the reason"
    return f"{verdict.outcome}, {verdict.steps} steps"


def learner_of(case: Case) -> Any:
    """The learner that the probe would train; this is no public API."""
    from pytest_overfit.adapters.dispatch import learner_for
    from pytest_overfit.data.telling import batch_of

    return learner_for(case, batch_of(case), SEED)


# ------------------------------------------------------------------------------------------------- rivals


def pytest_torch(program: Program, **form: Any) -> str:
    """The answer of `assert_overfits_one_batch`, as a test would call it."""
    from pytest_torch import assert_overfits_one_batch

    x, y = program.batch
    torch.manual_seed(SEED)
    try:
        run = assert_overfits_one_batch(program.model(), x, lambda outputs: program.loss(outputs, y), **form)
    except AssertionError as error:
        found = next((word for word in str(error).split() if word.isdigit()), "?")
        return f"fail, {found} steps"
    return f"pass, {len(run.losses) - 1} steps"


def pytest_torch_with_the_optimizer(program: Program) -> str:
    return pytest_torch(program, optimizer=program.optimizer, steps=500)


def torchtest2(program: Program, **form: Any) -> str:
    """The outcome of `check_model`: "ok" unless a check failed; then the result of `overfit_batch` alone."""
    import torchtest2 as rival

    x, y = program.batch
    torch.manual_seed(SEED)
    model = program.model()
    report = rival.check_model(
        model, x, y, loss_fn=program.loss, optimizer=program.optimizer(model.parameters()), **form
    )
    (check,) = [each for each in report.results if each.name == "overfit_batch"]
    failed = [each.name for each in report.results if each.status.name == "FAIL"]
    verdict = "pass" if not failed else f"fail ({', '.join(failed)})"
    # it stops before the step that its last loss would have led to
    steps = len(check.details.get("losses", ())) - (check.status.name == "PASS")
    return f"{verdict}; overfit_batch {check.status.name}, {steps} steps"


def torchtest2_overfit_batch(program: Program) -> str:
    """Its `overfit_batch` alone, with as many steps as ours may take."""
    import torchtest2 as rival

    needed = {"forward", "loss", "overfit_batch"}
    return torchtest2(program, skip=[each for each in rival.CHECKS if each not in needed], overfit_steps=500)


def lightning(program: Program, steps: int) -> str:
    """`Trainer(overfit_batches=1)`; logger, checkpoints, progress bar and summary are off, to its advantage."""
    torchvision_import.declare_operators()  # Lightning's metrics import torchvision
    import lightning

    torch.manual_seed(SEED)
    module = _lightning_module(program)
    rows = torch.utils.data.TensorDataset(*program.batch)
    loader = torch.utils.data.DataLoader(rows, batch_size=len(rows))
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            overfit_batches=1, max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, loader)
    assert trainer.global_step == steps
    return "-"


def _lightning_module(program: Program) -> Any:
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = program.model()

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            return program.loss(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return program.optimizer(self.parameters())

    return Module()


# ------------------------------------------------------------------------------------------------- table


def table() -> str:
    """A row a program, a column a tool."""
    askers: dict[str, Callable[[Any], str]] = {
        "pytest-overfit": our_answer,
        "pytest-torch, default": pytest_torch,
        "pytest-torch, same optimizer": pytest_torch_with_the_optimizer,
        "torchtest2 `check_model`, default": torchtest2,
    }
    lines = [
        "### What each says about healthy and broken programs",
        "",
        "Set in bold: a broken program that passes, or a healthy one that does not.",
        "",
        f"| program | truth | {' | '.join(askers)} |",
        "|---|---|" + "---|" * len(askers),
    ]
    wrong = dict.fromkeys(askers, 0)
    start_at(0)
    twins = programs.twins()
    for program in twins:
        cells = []
        for name, ask in askers.items():
            answer = ask(program)
            false = answer.startswith("pass") != program.healthy
            wrong[name] += false
            cells.append(f"**{answer}**" if false else answer)
        lines.append(f"| {program.name} | {'healthy' if program.healthy else 'broken'} | {' | '.join(cells)} |")
    lines.append(f"| wrong answers, of {len(twins)} | | {' | '.join(str(each) for each in wrong.values())} |")
    return "\n".join(lines)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(table())


if __name__ == "__main__":
    main()

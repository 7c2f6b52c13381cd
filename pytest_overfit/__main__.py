"""Commands on saved results; nothing is trained: `python -m pytest_overfit compare A B`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pytest_overfit.core.errors import CaseError


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 where something cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m pytest_overfit")
    commands = parser.add_subparsers(dest="command", required=True)
    compare = commands.add_parser("compare", help="print the numbers of two baselines side by side")
    for name in ("first", "second"):
        compare.add_argument(name, help="name given to --overfit-save, or a folder")
    compare.add_argument("--storage", default=".overfit", help="where names are looked up (default: .overfit)")
    given = parser.parse_args(arguments)

    from pytest_overfit.baselines.table import compare_folders

    storage = Path(given.storage)
    first, second = (Path(each) if Path(each).is_dir() else storage / each for each in (given.first, given.second))
    try:
        lines = compare_folders(first, second)
    except CaseError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""``python -m tests.proof [DIR]``: try every guarantee, and write down what was seen.

Exit code 0 where nothing failed. What could not be tried here is not proven here, and the report says so.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.proof.finding import named

REPORTS = Path("reports/proof")
CHOSEN = "prove or not (engine or ray)"
"""The journey's own countries are all that there is of real engines: a second pair would not fit beside them."""


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else REPORTS
    plugins = ["-p", "no:cacheprovider", "-p", "tests.proof.plugin"]
    reports = [f"--proof={folder}", f"--junitxml={folder / 'junit.xml'}"]
    return int(pytest.main(["-q", *plugins, *reports, "-m", CHOSEN, *named()]) != 0)


if __name__ == "__main__":
    sys.exit(main())

"""Run by ``test_linear_amx``: which kernel a process of its own takes for linear layers on its CPU."""

from __future__ import annotations

import sys

from kernels import linear

if __name__ == "__main__":
    sys.stdout.write(f"{linear.kernel('cpu').__name__}\n")

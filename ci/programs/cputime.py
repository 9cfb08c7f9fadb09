"""Clocks, timers and limits of CPU time, and children nobody waits for, line by line the same as under runc."""
import os

from cases import line_by_line

HERE = os.path.dirname(__file__)


def cases():
    yield line_by_line("clocks, timers and limits", f"{HERE}/cputime.c", least=1500)

"""Corners of system calls that programs rely on, line by line the same as under runc."""
import os

from cases import line_by_line

HERE = os.path.dirname(__file__)


def cases():
    yield line_by_line("corners of system calls", f"{HERE}/calls.c")
    yield line_by_line("far ends, running programs, sockets in sockets", f"{HERE}/edges.c", least=500)

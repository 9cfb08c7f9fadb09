"""Mounting inside the container, line by line the same as under runc with the same capabilities."""
import os

import bundle
from cases import line_by_line


def administrator(c):
    for kind in ("bounding", "effective", "permitted"):
        c["process"]["capabilities"][kind] = bundle.CAPABILITIES + ["CAP_SYS_ADMIN"]


def cases():
    yield line_by_line("mounting inside", os.path.join(os.path.dirname(__file__), "mounts.c"), change=administrator)

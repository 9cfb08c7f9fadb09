"""Corners of system calls that programs rely on, line by line the same as under runc."""
import os

from cases import line_by_line

HERE = os.path.dirname(__file__)


def with_rights(c):
    """New privileges, and file systems that give them, or not."""
    c["process"]["noNewPrivileges"] = False
    c["root"]["readonly"] = False
    c["mounts"].append({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["nodev", "mode=755"]})


def with_queues(c):
    """The file system of message queues, as engines mount it, and new privileges."""
    c["process"]["noNewPrivileges"] = False
    c["mounts"].append({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]})


def cases():
    yield line_by_line("corners of system calls", f"{HERE}/calls.c", change=with_queues)
    yield line_by_line("far ends, running programs, sockets in sockets", f"{HERE}/edges.c", least=500)
    yield line_by_line("rights of programs", f"{HERE}/privileges.c", change=with_rights, args=("/", "/mnt", "/tmp"))
    yield line_by_line("memory as a file", f"{HERE}/memfile.c", least=500)
    yield line_by_line("signals of readiness", f"{HERE}/sigio.c", timeout=120)

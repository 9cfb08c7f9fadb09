#!/usr/bin/env python3
"""Builds newc cpio archives for an initramfs, without root and without the cpio tool.

  initramfs.py pack OUT ITEM...
      d:/dir | s:/link:target | c:/dev/node:MAJOR:MINOR | f:/dst:src[:mode] | t:/dst:source-tree | x:/dst:mode:text
  initramfs.py modules MODULES_DIR OUT_DIR NAME...
      unpacks the named kernel modules, what they depend on, and the indexes depmod needs
"""
import lzma
import os
import re
import shutil
import stat
import subprocess
import sys


class Archive:
    """Writes one cpio archive; parent directories appear by themselves, each path once."""

    def __init__(self, path):
        self.out = open(path, "wb")
        self.inode = 0
        self.seen = {""}

    def record(self, name, mode, data=b"", major=0, minor=0):
        name = name.strip("/").encode()
        self.inode += 1
        fields = (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08x" % f for f in fields) + name + b"\0"
        self.out.write(head + b"\0" * (-len(head) % 4))
        self.out.write(data)
        self.out.write(b"\0" * (-len(data) % 4))

    def directory(self, path, mode=0o755):
        path = path.strip("/")
        if path in self.seen:
            return
        self.parents(path)
        self.seen.add(path)
        self.record(path, stat.S_IFDIR | mode)

    def parents(self, path):
        parent = os.path.dirname(path.strip("/"))
        if parent:
            self.directory(parent)

    def link(self, path, target):
        self.parents(path)
        self.record(path, stat.S_IFLNK | 0o777, target.encode())

    def device(self, path, major, minor):
        self.parents(path)
        self.record(path, stat.S_IFCHR | 0o600, b"", major, minor)

    def text(self, path, mode, data):
        self.parents(path)
        self.record(path, stat.S_IFREG | mode, data)

    def file(self, path, source, mode=None):
        with open(source, "rb") as f:
            self.text(path, os.stat(source).st_mode & 0o7777 if mode is None else mode, f.read())

    def tree(self, path, source):
        self.directory(path)
        for root, dirs, files in os.walk(source):
            base = os.path.normpath(os.path.join(path, os.path.relpath(root, source)))
            self.directory(base)
            for d in sorted(dirs):
                full = os.path.join(root, d)
                if not os.path.islink(full):
                    self.directory(os.path.join(base, d), os.stat(full).st_mode & 0o7777)
            for name in sorted(files + [d for d in dirs if os.path.islink(os.path.join(root, d))]):
                full, to = os.path.join(root, name), os.path.join(base, name)
                mode = os.lstat(full).st_mode
                if stat.S_ISLNK(mode):
                    self.link(to, os.readlink(full))
                elif stat.S_ISREG(mode):
                    self.file(to, full)
                elif stat.S_ISFIFO(mode):
                    self.record(to, mode)

    def close(self):
        self.record("TRAILER!!!", 0)
        # The kernel accepts archives one after the other when each starts on a 4-byte boundary.
        self.out.write(b"\0" * (-self.out.tell() % 512))
        self.out.close()

    def item(self, spec):
        kind, rest = spec.split(":", 1)
        if kind == "x":
            path, mode, text = rest.split(":", 2)
            return self.text(path, int(mode, 8), text.encode())
        a = rest.split(":")
        if kind == "d":
            self.directory(a[0])
        elif kind == "s":
            self.link(a[0], a[1])
        elif kind == "c":
            self.device(a[0], int(a[1]), int(a[2]))
        elif kind == "f":
            self.file(a[0], a[1], int(a[2], 8) if len(a) > 2 else None)
        elif kind == "t":
            self.tree(a[0], a[1])
        else:
            raise SystemExit(f"initramfs: unknown item {spec}")


def unpack_module(path):
    with open(path, "rb") as f:
        data = f.read()
    if path.endswith(".xz"):
        return lzma.decompress(data)
    if path.endswith(".zst"):
        return subprocess.run(["zstd", "-dc"], input=data, stdout=subprocess.PIPE, check=True).stdout
    return data


def modules(source, out, names):
    """Copies modules with their closure of `depends=`, uncompressed: decompression is slow in emulation."""
    index = {}
    for root, _, files in os.walk(source):
        for f in files:
            m = re.match(r"(.*)\.ko(\.\w+)?$", f)
            if m:
                index[m[1].replace("-", "_")] = os.path.join(root, f)
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    done, todo, absent = set(), [n.replace("-", "_") for n in names], []
    while todo:
        name = todo.pop()
        if name in done:
            continue
        done.add(name)
        if name not in index:
            absent.append(name)  # built in, or of the other architecture
            continue
        data = unpack_module(index[name])
        with open(os.path.join(out, name + ".ko"), "wb") as f:
            f.write(data)
        for found in re.findall(rb"\0depends=([^\0]*)\0", b"\0" + data):
            todo += [d.replace("-", "_") for d in found.decode().split(",") if d]
    for f in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        if os.path.exists(os.path.join(source, f)):
            shutil.copy(os.path.join(source, f), out)
    if absent:
        print("setup: not modules of this kernel:", " ".join(sorted(absent)))


def main():
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    if sys.argv[1] == "modules":
        return modules(sys.argv[2], sys.argv[3], sys.argv[4:])
    archive = Archive(sys.argv[2])
    for item in sys.argv[3:]:
        archive.item(item)
    archive.close()


if __name__ == "__main__":
    main()

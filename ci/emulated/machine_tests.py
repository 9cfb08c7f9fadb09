"""hal's test of the machine itself (hal/examples/machine_test), booted without a container on an emulated machine."""
import os
import re
import shutil

import process
from report import check

KERNEL_TARGET = {"x86_64": "x86_64-unknown-none", "aarch64": "aarch64-unknown-none-softfloat"}

# What the guest must find on, by (architecture, CPU model); cortex-a72 has no PAN.
PROTECTIONS = {
    ("x86_64", "max"): {"WP", "NX", "SMEP", "SMAP", "UMIP"},
    ("aarch64", "neoverse-n1"): {"PAN", "PAN at traps"},
    ("aarch64", "cortex-a72"): set(),
}

# Two processors and one; a machine that hangs is told from one that ends.
DRIVER = r"""
for cpus in 2 1; do
  timeout -s KILL 60 ./kvm_boot machine_test 3 $cpus; rc=$?
  [ $rc = 0 ] || { echo "on $cpus processors: exit status $rc"; exit 1; }
done
"""


def prepare(arch, directory, log):
    """Builds the kernel and what boots it into `directory`."""
    host = f"{arch}-unknown-linux-musl"
    parts = (("qvisor", "kvm_boot", host), ("hal", "machine_test", KERNEL_TARGET[arch]))
    for package, example, target in parts:
        command = ["cargo", "build", "--locked", "--release", "-p", package, "--example", example, "--target", target]
        built = process.run(command, timeout=900, log=log)
        check(built.rc == 0, f"{example} does not build\n{built}")
        where = os.environ.get("CARGO_TARGET_DIR", "target")
        os.makedirs(directory, exist_ok=True)
        shutil.copy(f"{where}/{target}/release/examples/{example}", directory)


def judge(machine, result):
    check(result.rc == 0, f"the machine's test failed\n{result}")
    found = set(re.findall(r"protection (.+): on$", result.errors, re.M))
    wanted = PROTECTIONS[machine.arch, machine.cpu]
    check(found >= wanted, f"protections that are not on: {sorted(wanted - found)}\n{result}")


def run(machine, stage):
    def body():
        directory = f"{machine.directory}/machine"
        prepare(machine.arch, directory, machine.log)
        judge(machine, machine.boot(["sh", "-c", f"cd machine\n{DRIVER}"], 180))
    machine.report.case(f"{stage}/machine", body)

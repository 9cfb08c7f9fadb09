"""Installs the Debian packages that tests need, when the first of them needs them."""
import os
import subprocess

from report import Skip

COMMON = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib", "common.sh")


def need(*packages):
    """Makes sure that the packages are installed; a case that cannot have them is skipped loudly."""
    try:
        done = subprocess.run(["bash", "-c", f'. "{COMMON}"; apt_need "$@"', "apt_need", *packages], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise Skip(f"cannot install {' '.join(packages)}: {e}") from None
    if done.returncode != 0:
        raise Skip(f"cannot install {' '.join(packages)}: {done.stdout[-500:].strip()}")
    if done.stdout:
        print(done.stdout.rstrip(), flush=True)


def mirror():
    """Returns the Debian mirror this machine is configured with."""
    return subprocess.run(["bash", "-c", f'. "{COMMON}"; debian_mirror'], stdout=subprocess.PIPE, check=True, text=True).stdout.strip()

"""OCI bundles for the tests: a config.json written here (not by the runtime under test) over a shared root file system."""
import copy
import hashlib
import json
import os
import shutil
import subprocess
import tempfile

import apt
from report import Skip

CACHE = os.environ.get("QUARK_CACHE") or os.path.join(os.path.dirname(__file__), "..", "..", ".cache")
CAPABILITIES = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
                "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
                "CAP_AUDIT_WRITE"]
CONFIG = {
    "ociVersion": "1.0.2",
    "process": {
        "terminal": False,
        "user": {"uid": 0, "gid": 0},
        "args": ["sh"],
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=xterm", "LC_ALL=C"],
        "cwd": "/",
        "capabilities": {k: CAPABILITIES for k in ("bounding", "effective", "permitted")},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 4096, "soft": 1024}],
        "noNewPrivileges": True,
    },
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "container",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
         "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]},
        {"destination": "/root", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=700"]},
    ],
    "linux": {
        "resources": {},
        "namespaces": [{"type": t} for t in ("pid", "network", "ipc", "uts", "mount")],
        "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    },
}


def config(args, root, terminal=False, env=(), cwd="/", readonly=True, mounts=(), resources=None, change=None, host_network=False):
    """Returns a configuration; `change` gets it last, for what has no argument here."""
    c = copy.deepcopy(CONFIG)
    c["process"].update(args=list(args), terminal=terminal, cwd=cwd)
    c["process"]["env"] += list(env)
    c["root"].update(path=root, readonly=readonly)
    c["mounts"] += list(mounts)
    c["linux"]["resources"] = resources or {}
    if host_network:
        c["linux"]["namespaces"] = [n for n in c["linux"]["namespaces"] if n["type"] != "network"]
    if change:
        change(c)
    return c


def write(directory, configuration):
    """Writes config.json; returns the bundle's directory."""
    os.makedirs(directory, exist_ok=True)
    text = configuration if isinstance(configuration, str) else json.dumps(configuration, indent=1)
    with open(os.path.join(directory, "config.json"), "w", encoding="utf-8") as f:
        f.write(text)
    return directory


def skeleton(root):
    for d in ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "usr/bin", "usr/sbin", "sbin", "var", "mnt"):
        os.makedirs(os.path.join(root, d), exist_ok=True)
    for name, text in (("passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
                       ("group", "root:x:0:\nnogroup:x:65534:\n"), ("hosts", "127.0.0.1 localhost\n")):
        with open(os.path.join(root, "etc", name), "w", encoding="utf-8") as f:
            f.write(text)


def busybox(binary="/bin/busybox", name="busybox-root"):
    """Makes the busybox root file system from a static busybox; returns its path."""
    # The host's own is asked for the list of programs, whoever's binary it is.
    apt.need("busybox-static")
    with open(binary, "rb") as f:
        key = hashlib.sha256(f.read()).hexdigest()[:12]
    root = os.path.join(CACHE, "rootfs", f"{name}-{key}")
    if os.path.exists(os.path.join(root, ".complete")):
        return root
    shutil.rmtree(root, ignore_errors=True)
    skeleton(root)
    shutil.copy(binary, os.path.join(root, "bin/busybox"))
    # A foreign busybox cannot be asked, and Debian's are built alike: the host's list serves both.
    listing = subprocess.run(["/bin/busybox", "--list"], stdout=subprocess.PIPE, check=True, text=True).stdout.split()
    for applet in listing:
        if applet != "busybox":
            os.symlink("busybox", os.path.join(root, "bin", applet))
    open(os.path.join(root, ".complete"), "w", encoding="utf-8").close()
    return root


DEBIAN_PACKAGES = ["python3", "perl", "gcc", "libc6-dev", "make", "git", "procps", "bzip2", "xz-utils", "ca-certificates"]


SERVER_PACKAGES = ["python3", "procps", "redis-server", "nginx-light", "postgresql-15", "sqlite3", "apache2-utils", "iproute2", "net-tools", "iputils-ping",
                   "lsof", "curl", "xz-utils", "zstd", "sysstat"]


def debian(packages=None, name="debian", make=True):
    """Makes a Debian root file system, with development tools unless told otherwise, with mmdebstrap; returns its path. Takes a
    minute, once; without `make`, None when it was not made yet."""
    packages = packages or DEBIAN_PACKAGES
    key = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:12]
    root = os.path.join(CACHE, "rootfs", f"{name}-{key}")
    if os.path.exists(root):
        return root
    if not make:
        return None
    apt.need("mmdebstrap")
    new = root + ".new"
    shutil.rmtree(new, ignore_errors=True)
    os.makedirs(os.path.dirname(root), exist_ok=True)
    # The machine's own apt sources, so that a configured mirror or proxy is used.
    done = subprocess.run(
        ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--include=" + ",".join(packages),
         # update-alternatives wants the directory even where no page is installed.
         '--essential-hook=mkdir -p "$1/usr/share/man/man1"',
         "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
         "--dpkgopt=path-exclude=/usr/share/locale/*", "bookworm", new, apt.mirror()],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise Skip("mmdebstrap failed: " + done.stdout[-1500:])
    # Device nodes of the host's are no business of a container's.
    shutil.rmtree(os.path.join(new, "dev"), ignore_errors=True)
    os.makedirs(os.path.join(new, "dev"))
    os.rename(new, root)
    return root


# Where servers want to write, in a read-only root.
SERVER_MOUNTS = [{"destination": d, "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]} for d in ("/run", "/var/log", "/var/lib/nginx")]


def servers():
    """Makes a Debian root file system with servers and the tools that look at a system; returns its path."""
    return debian(SERVER_PACKAGES, "servers")


# Interpreters, compilers, and CPython's own tests; 1.3 GB unpacked.
LANGUAGE_PACKAGES = DEBIAN_PACKAGES + ["libpython3.11-testsuite", "nodejs", "default-jdk-headless", "golang-go", "dpkg-dev", "tzdata", "netbase",
                                       "strace", "iproute2"]
LANGUAGE_SOURCES = ["zlib", "lua5.4"]


def languages():
    """Makes the Debian root file system of the language tests, with the source packages they build in /usr/src; returns its path."""
    root = debian(LANGUAGE_PACKAGES, "languages")
    for package in LANGUAGE_SOURCES:
        target = os.path.join(root, "usr/src", package)
        if not os.path.exists(target):
            source_package(package, target)
    return root


def source_package(package, target):
    """Unpacks a Debian source package, patched, as `target`."""
    apt.need("dpkg-dev")
    with tempfile.TemporaryDirectory(prefix="source.", dir=os.path.dirname(target)) as d:
        os.makedirs(f"{d}/lists/partial")
        with open(f"{d}/sources.list", "w", encoding="utf-8") as f:
            f.write(f"deb-src {apt.mirror()} bookworm main\n")
        get = ["apt-get", "-qq", "-o", f"Dir::Etc::SourceList={d}/sources.list", "-o", "Dir::Etc::SourceParts=-",
               "-o", f"Dir::State::Lists={d}/lists", "-o", "APT::Sandbox::User=root"]
        for command in (get + ["update"], get + ["source", "--download-only", package], ["sh", "-c", "dpkg-source --extract *.dsc unpacked"]):
            done = subprocess.run(command, cwd=d, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
            if done.returncode != 0:
                raise Skip(f"{' '.join(command)} failed: {done.stdout[-1500:]}")
        os.rename(f"{d}/unpacked", target)


TOOL_PACKAGES = ["bash", "dash", "coreutils", "findutils", "grep", "tar", "gzip", "sed", "mawk", "dpkg", "perl-base", "diffutils",
                 "procps", "util-linux", "base-files", "base-passwd", "libc-bin", "hostname", "login", "passwd"]


# Interpreters, a server, and what looks at a network; runc, which says what Linux does; and where it is given what it needs.
PROGRAM_PACKAGES = TOOL_PACKAGES + ["python3", "redis-server", "iproute2", "net-tools", "iputils-ping", "lsof", "netbase", "runc"]


def debian_image(deb_arch, packages=None, name="tools"):
    """Makes an ext4 image of Debian packages for either architecture, unpacked but not configured (that would need its
    processor); returns its path."""
    packages = packages or TOOL_PACKAGES
    key = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:12]
    target = os.path.join(CACHE, "rootfs", f"{name}-{deb_arch}-{key}.ext4")
    if os.path.exists(target):
        return target
    apt.need("mmdebstrap", "e2fsprogs")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="debian.", dir=os.path.dirname(target)) as d:
        root = f"{d}/root"
        done = subprocess.run(
            ["mmdebstrap", "--quiet", "--mode=root", "--variant=extract", f"--architectures={deb_arch}", "--skip=cleanup/apt/cache",
             "--include=" + ",".join(packages), "bookworm", root, apt.mirror()],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise Skip("mmdebstrap failed: " + done.stdout[-1500:])
        configure(root)
        for waste in ("dev", "usr/share/doc", "usr/share/man", "usr/share/locale"):
            shutil.rmtree(f"{root}/{waste}", ignore_errors=True)
        for place in ("dev", "job", "disk0"):
            os.makedirs(f"{root}/{place}", exist_ok=True)
        # Python would compile its modules anew at every start, as the image is read-only.
        if os.path.exists(f"{root}/usr/lib/python3.11"):
            subprocess.run(["python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", root, f"{root}/usr/lib/python3.11"],
                           stdout=subprocess.DEVNULL, check=False)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", root, f"{d}/image", "400M"], check=True)
        os.rename(f"{d}/image", target)
    return target


def configure(root):
    """Does what the maintainer scripts would have done, as far as the tests look at it."""
    archives = f"{root}/var/cache/apt/archives"
    with open(f"{root}/var/lib/dpkg/status", "w", encoding="utf-8") as status:
        for deb in sorted(os.listdir(archives)):
            if not deb.endswith(".deb"):
                continue
            path = os.path.join(archives, deb)
            control = subprocess.run(["dpkg-deb", "-f", path], stdout=subprocess.PIPE, check=True, text=True).stdout
            name, rest = control.split("\n", 1)
            status.write(f"{name}\nStatus: install ok installed\n{rest.rstrip()}\n\n")
            files = subprocess.run(["dpkg-deb", "--fsys-tarfile", path], stdout=subprocess.PIPE, check=True).stdout
            listing = subprocess.run(["tar", "t"], input=files, stdout=subprocess.PIPE, check=True).stdout.decode()
            with open(f"{root}/var/lib/dpkg/info/{name.split()[1]}.list", "w", encoding="utf-8") as f:
                f.write("".join("/" + (p[2:].rstrip("/") or ".") + "\n" for p in listing.splitlines()))
            os.unlink(path)
    for f in ("passwd", "group"):
        shutil.copy(f"{root}/usr/share/base-passwd/{f}.master", f"{root}/etc/{f}")
    os.symlink("mawk", f"{root}/usr/bin/awk")

"""Docker: dockerd of the distribution with Quark as a runtime beside runc."""
import json

import docker_cases
from engine import Engine
from nest import SystemdNest
from report import check

PRELUDE = r"""
export DOCKER_HOST=unix://$DIR/docker.sock
run() { docker run --runtime=$RUNTIME --label test=$N "$@"; }
create() { docker create --runtime=$RUNTIME --label test=$N "$@"; }
# Waits until a command succeeds, ten seconds at most.
until_ok() { for _ in $(seq 100); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done; echo "never: $*"; return 1; }
until_log() { for _ in $(seq 100); do docker logs $1 2>&1 | grep -q "$2" && return 0; sleep 0.1; done; echo "no $2 in the log"; docker logs $1; return 1; }
# Runs a command on a terminal of its own.
on_tty() { script -qec "$*" /dev/null | sed 's,^@,,g'; return ${PIPESTATUS[0]}; }
"""
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Docker(Engine):
    """A daemon in a nest."""
    packages = ("docker.io", "containerd", "runc", "iptables", "tini", "busybox-static", "iproute2", "procps")
    prelude = PRELUDE
    cleaning = """docker ps -aq --filter label=test=$N | xargs -r docker rm -fv
docker network ls -q --filter name=$N | xargs -r docker network rm
docker volume ls -q --filter name=$N | xargs -r docker volume rm"""
    cases = docker_cases.CASES

    def start(self):
        n = self.nest
        with open(f"{n.dir}/daemon.json", "w", encoding="utf-8") as f:
            f.write(f'{{"runtimes": {json.dumps(self.runtimes())}, {self.parent()}}}\n')
        socket = f"unix://{n.dir}/docker.sock"
        n.daemon(f"dockerd --config-file {n.dir}/daemon.json --data-root {n.dir}/data --exec-root {n.dir}/exec "
                 f"-H {socket} -p {n.dir}/docker.pid --bip 172.29.7.1/24", "dockerd.log")
        n.wait(f"docker -H {socket} version")
        rc, out = n.script(f"docker -H {socket} import -c 'CMD [\"sh\"]' -c 'ENV {PATH}' {n.image()} busybox")
        check(rc == 0, f"cannot import the image\n{out}")

    def runtimes(self):
        return {"quark": {"path": self.nest.quark}}

    def parent(self):
        return f'"cgroup-parent": "/{self.nest.name}"'

    def leftovers(self):
        """What is left once every container is removed."""
        return self.nest.remains(("dockerd ", "containerd "), f"{self.nest.dir}/exec /run/containerd")


class DockerOfSystemd(Docker):
    """As on a host where systemd rules the cgroups: the daemon passes --systemd-cgroup."""
    packages = (*Docker.packages, "systemd")
    nest_kind = SystemdNest
    cases = docker_cases.SYSTEMD

    def parent(self):
        return '"exec-opts": ["native.cgroupdriver=systemd"]'

    def leftovers(self):
        _, out = self.nest.script("find /sys/fs/cgroup -name 'docker-*.scope'; systemctl list-units --no-legend --plain 'docker-*.scope'")
        return out.splitlines()

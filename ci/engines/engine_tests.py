"""The stage `engines`: each engine's cases, run with runc and with Quark."""
import time

import apt
import compare
from containerd import Containerd
from docker import Docker, DockerOfSystemd
from podman import Podman
from report import Failure, Skip, check
from served import Served

ENGINES = {"docker": Docker, "docker-served": Served, "docker-systemd": DockerOfSystemd, "containerd": Containerd, "podman": Podman}


def case_of(engine, case, log, shown):
    def body():
        try:
            shown.append(compare.run(engine, case))
        except Exception as e:
            with open(log, "w", encoding="utf-8") as f:
                f.write(f"{e}\n{engine.nest.logs()}")
            raise
    return body


def nothing_left(engine):
    """Engines remove what has ended a little later."""
    end = time.monotonic() + 10
    while left := engine.leftovers():
        check(time.monotonic() < end, "\n".join(left))
        time.sleep(0.5)


def run_engine(report, full, name, make, subject):
    stage = f"engines/{name}"
    if not report.wanted(stage):
        return
    engine = None
    try:
        apt.need(*make.packages)
        engine = make(*subject)
        for case in engine.cases:
            if case.full and not full:
                continue
            shown = []
            full_name = f"{stage}/{case.name}"
            report.case(full_name, case_of(engine, case, report.log_path(full_name), shown))
            for text in shown:
                print("        " + text, flush=True)
        report.case(f"{stage}/nothing is left behind", lambda: nothing_left(engine))
    except Skip as e:
        report.skip(stage, str(e), e.installable)
    except Failure as e:
        report.fail(f"{stage}/start", str(e))
    finally:
        if engine is not None:
            engine.end()


def run(report, full, *subject):
    for name, make in ENGINES.items():
        run_engine(report, full, name, make, subject)

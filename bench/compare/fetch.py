"""Gets the peers: jars from Maven, programs from the Go module proxy. Once; the cache keeps them."""

import os
import shutil
import subprocess
from pathlib import Path

from machine import Absent

HERE = Path(__file__).resolve().parent


def jars(cache, name):
    """The jars that NAME.xml lists."""
    pom = HERE / f"{name}.xml"
    found = cache / name
    done = found / ".complete"
    if done.exists() and done.read_text() == pom.read_text():
        return found
    for program in ["java", "mvn"]:
        if shutil.which(program) is None:
            raise Absent(f"{program} is not installed")
    shutil.rmtree(found, ignore_errors=True)
    fetched = subprocess.run(["mvn", "-q", "-B", "-f", pom, "dependency:copy-dependencies", f"-DoutputDirectory={found}",
                              "-DincludeScope=runtime"], capture_output=True, text=True)
    if fetched.returncode != 0:
        raise Absent(f"Maven cannot fetch it: {(fetched.stdout or fetched.stderr).strip().splitlines()[-1][:200]}")
    done.write_text(pom.read_text())
    return found


def jar_version(folder, name):
    """The version of the jar NAME-VERSION.jar."""
    found = sorted(folder.glob(f"{name}-[0-9]*.jar"))
    return found[0].stem[len(name) + 1:] if found else ""


def go_program(cache, program, module):
    """A program, built from the Go module proxy in just this version."""
    folder = cache / "bin" / module.rpartition("@")[2]
    built = folder / program
    if built.exists():
        return built
    if shutil.which("go") is None:
        raise Absent("Go is not installed")
    done = subprocess.run(["go", "install", module], capture_output=True, text=True,
                          env={**os.environ, "GOBIN": str(folder), "GOFLAGS": "-mod=mod"})
    if done.returncode != 0:
        raise Absent(f"`go install {module}` failed: {done.stderr.strip().splitlines()[-1].strip()[:200]}")
    return built

"""Processes on chosen cores, ports, and what machine this is."""

import os
import platform
import signal
import socket
import subprocess
import time

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class Absent(Exception):
    """A peer cannot be set up here; the text says why."""


def start(command, cores, log, **options):
    """Starts a process on some cores; it writes into the file `log`."""
    out = open(log, "wb")
    return subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                            preexec_fn=lambda: os.sched_setaffinity(0, cores), **options)


def run(command, cores, timeout, check=True):
    """Runs a process on some cores to its end; the answer is what it printed."""
    done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=timeout, preexec_fn=lambda: os.sched_setaffinity(0, cores))
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command[:4]))} ... ended with {done.returncode}: "
                           f"{(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def run_for(command, cores, seconds, log):
    """Runs a process for so long, or to its end if that comes first; the answer is what it printed."""
    process = start(command, cores, log)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with open(log, errors="replace") as text:
        return text.read()


def stop(process):
    """Ends a process that `start` started."""
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for_port(port, process, log, seconds=90):
    """Waits until somebody listens."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    with open(log, errors="replace") as text:
        lines = text.read().splitlines()
    told = next((line for line in lines if "rror" in line or "Exception" in line), "")
    raise RuntimeError(f"nobody listens on port {port}; its log: {told.strip()[:300]} ... {' '.join(lines[-2:])[-200:]}")


def processor_seconds(pid):
    """What a process has used of processors, all threads together."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def memory_mb(pid):
    """The most memory that a process had resident at once, and what of it now is no file that the kernel could drop."""
    found = {}
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            name, _, value = line.partition(":")
            if name in ("VmHWM", "RssAnon"):
                found[name] = int(value.split()[0]) / 1024
    return found.get("VmHWM", 0.0), found.get("RssAnon", 0.0)


def describe(directory):
    """The machine, a line for each of its parts."""
    def first(path, name):
        with open(path) as lines:
            return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "?")

    mount = subprocess.run(["findmnt", "-no", "SOURCE,FSTYPE", "-T", directory], capture_output=True, text=True)
    java = subprocess.run("java -version 2>&1 | head -1", shell=True, capture_output=True, text=True)
    return [
        f"{os.cpu_count()} cores: {first('/proc/cpuinfo', 'model name')}",
        f"memory: {int(first('/proc/meminfo', 'MemTotal').split()[0]) // 1024} MB",
        f"kernel: {platform.release()}",
        f"disk of the data: {' '.join(mount.stdout.split()) or '?'}",
        f"Java: {java.stdout.strip() or 'none'}",
    ]

"""Processes on chosen cores, ports, and what machine this is."""

import os
import platform
import socket
import subprocess
import time


class Absent(Exception):
    """A peer cannot be set up here; the text says why."""


def start(command, core, log, **options):
    """Starts a process on a core; it writes into the file `log`."""
    out = open(log, "wb")
    return subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                            preexec_fn=lambda: os.sched_setaffinity(0, {core}), **options)


def run(command, core, timeout, check=True):
    """Runs a process on a core to its end; the answer is what it printed."""
    done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=timeout, preexec_fn=lambda: os.sched_setaffinity(0, {core}))
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command[:4]))} ... ended with {done.returncode}: "
                           f"{(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def stop(process):
    """Ends a process that `start` started."""
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(30)
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
        raise RuntimeError(f"nobody listens on port {port}; {log} ends with: {text.read()[-500:]}")


def most_memory_mb(process):
    """The most memory that a process had at once, in MB."""
    with open(f"/proc/{process.pid}/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def describe(directory):
    """The machine, a line for each of its parts."""
    def first(path, name):
        with open(path) as lines:
            return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "?")

    mount = subprocess.run(["findmnt", "-no", "SOURCE,FSTYPE", "-T", directory], capture_output=True, text=True)
    return [
        f"{os.cpu_count()} cores: {first('/proc/cpuinfo', 'model name')}",
        f"memory: {int(first('/proc/meminfo', 'MemTotal').split()[0]) // 1024} MB",
        f"kernel: {platform.release()}",
        f"disk of the data: {mount.stdout.strip() or '?'}",
        f"load when it began: {os.getloadavg()[0]:.1f}",
    ]

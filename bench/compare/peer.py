"""What every peer has: a directory, a server on its cores, and figures of what the server used."""

import re
import shutil
import time

import machine


class Peer:
    """A server that is started, loaded and stopped.

    It is set up as its own documents recommend for one node; what was changed for the comparison is said in `settings`.
    `measure` gives a dictionary with `rate` (messages a second) and, where the tool measures it as the others do, `p50_ms`
    and `p99_ms`; or None where the workload cannot be compared.
    """

    name = ""
    durable = False
    settings = ""
    is_jvm = False

    def __init__(self, options):
        self.options = options
        self.server = None
        self.port = options.port
        self.server_cores = {options.server_core}
        self.generator_cores = {options.generator_core}

    @property
    def slug(self):
        return re.sub("[^a-z0-9]+", "-", self.name.lower()).strip("-")

    @property
    def dir(self):
        return self.options.dir / self.slug

    def prepare(self):
        """Fetches what is needed; raises machine.Absent."""

    def can(self, workload):
        """Whether there is something to compare."""
        raise NotImplementedError

    def start(self):
        raise NotImplementedError

    def warm(self):
        """Load before the first measurement: only those whose code is compiled while they run need it."""

    def measure(self, workload):
        raise NotImplementedError

    def version(self):
        return ""

    def stop(self):
        machine.stop(self.server)
        self.server = None
        self.clean()

    def clean(self):
        shutil.rmtree(self.dir, ignore_errors=True)

    def fresh(self):
        shutil.rmtree(self.dir, ignore_errors=True)
        self.dir.mkdir(parents=True)

    def log(self, name="server"):
        return self.dir / f"{name}.log"

    def launch(self, command, port):
        self.server = machine.start(command, self.server_cores, self.log(), cwd=self.dir)
        machine.wait_for_port(port, self.server, self.log())

    def seconds_for(self, workload):
        """About how long a measurement takes, for the bound of a block."""
        return self.options.seconds + self.options.warm_up + 2

    def measured(self, workload):
        """The figures with what the server used meanwhile."""
        before, since = machine.processor_seconds(self.server.pid), time.monotonic()
        figures = self.measure(workload)
        used = machine.processor_seconds(self.server.pid) - before
        most, anonymous = machine.memory_mb(self.server.pid)
        figures.setdefault("server_busy", round(used / (time.monotonic() - since), 3))
        return {**figures, "resident_mb": round(most, 1), "anonymous_mb": round(anonymous, 1)}

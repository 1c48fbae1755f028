"""NATS JetStream, loaded by `nats bench`, which measures rates and no latencies that could be compared."""

import re

import fetch
import machine
from peer import Peer

SERVER = "github.com/nats-io/nats-server/v2@v2.15.3"
CLIENT = "github.com/nats-io/natscli/nats@latest"


class Nats(Peer):
    def __init__(self, options, always):
        self.name = "NATS JetStream always" if always else "NATS JetStream"
        self.durable = always
        self.always = always
        self.settings = "one node, a stream with file storage, GOMAXPROCS as it chooses on one core" + (
            ", sync_interval: always" if always else ", its default sync_interval (2 minutes)")
        super().__init__(options)

    def prepare(self):
        self.program = fetch.go_program(self.options.cache, "nats-server", SERVER)
        self.client = fetch.go_program(self.options.cache, "nats", CLIENT)

    def can(self, workload):
        return not workload.json and workload.command != "mixed" and workload.topics == 1 and \
            workload.key != "catch-up-32"

    def start(self):
        self.fresh()
        config = self.dir / "nats.conf"
        sync = "  sync_interval: always\n" if self.always else ""
        config.write_text(f'listen: "127.0.0.1:{self.port}"\njetstream {{\n  store_dir: "{self.dir}/data"\n{sync}}}\n')
        self.launch([self.program, "-c", config], self.port)

    def bench(self, *args):
        return machine.run([self.client, "-s", f"nats://127.0.0.1:{self.port}", "bench", "js", *args, "--no-progress"],
                           self.generator_cores, 60)

    def publish(self, workload, messages):
        """One message a request from publishers that wait for each answer, or in the tool's batches."""
        stream = ["bench", "--create", "--purge", "--storage", "file", "--size", workload.size, "--msgs", messages]
        if workload.batch > 1:
            how = ["pub", "async", *stream, "--clients", workload.connections,
                   "--batch", workload.in_flight * workload.batch]
        elif workload.total_in_flight > 64:
            how = ["pub", "async", *stream, "--clients", workload.connections, "--batch", workload.in_flight]
        else:
            how = ["pub", "sync", *stream, "--clients", workload.total_in_flight]
        return rate_of(self.bench(*how))

    def measure(self, workload):
        if workload.command == "consume":
            return self.consume(workload)
        guess = self.publish(workload, 4000)
        return {"rate": self.publish(workload, max(2000, int(guess * self.options.seconds))), "note": ""}

    def consume(self, workload):
        messages = 300_000
        self.bench("pub", "async", "bench", "--create", "--purge", "--storage", "file", "--size", workload.size, "--msgs",
                   messages, "--clients", 4, "--batch", 500)
        return {"rate": rate_of(self.bench("ordered", "--stream", "benchstream", "--purge", "--msgs", messages)), "note": ""}

    def seconds_for(self, workload):
        return 2 * self.options.seconds + (25 if workload.command == "consume" else 4)

    def version(self):
        return machine.run([self.program, "--version"], self.generator_cores, 20).strip().rpartition(" ")[2]


def rate_of(text):
    """Messages a second of all clients together: the last figure that the tool prints."""
    return float(re.findall(r"([\d,]+) msgs/sec", text)[-1].replace(",", ""))

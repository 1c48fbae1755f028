"""NATS JetStream, loaded by `nats bench`, which measures rates and no latencies that could be compared."""

import re

import fetch
import machine
from peer import Peer

SERVER = "github.com/nats-io/nats-server/v2@v2.15.3"
CLIENT = "github.com/nats-io/natscli/nats@v0.5.1"


class Nats(Peer):
    def __init__(self, options, always):
        self.name = "NATS JetStream always" if always else "NATS JetStream"
        self.durable = always
        self.always = always
        self.settings = "one node, a stream with file storage" + (
            ", sync_interval: always" if always else ", its default sync_interval (2 minutes)")
        super().__init__(options)

    def prepare(self):
        self.program = fetch.go_program(self.options.cache, "nats-server", SERVER)
        self.client = fetch.go_program(self.options.cache, "nats", CLIENT)

    def can(self, workload):
        # Reading does not depend on how it was written, and writing so much with a sync each takes minutes.
        if workload.command == "consume" and self.always:
            return False
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
        """From publishers that wait for each answer: of a message, or, where each is synced, of an atomic batch of them. More in
        flight are asynchronous: the tool sends so many and waits for their answers. Of the two for batches the faster is used."""
        stream = ["bench", "--create", "--purge", "--storage", "file", "--size", workload.size, "--msgs", messages]
        if workload.batch > 1 and not self.always:
            how = ["pub", "async", *stream, "--clients", workload.connections,
                   "--batch", workload.in_flight * workload.batch]
        elif workload.batch > 1:
            how = ["pub", "atomic", *stream, "--clients", workload.total_in_flight, "--batch", workload.batch]
        elif workload.total_in_flight > 64:
            how = ["pub", "async", *stream, "--clients", workload.connections, "--batch", workload.in_flight]
        else:
            how = ["pub", "sync", *stream, "--clients", workload.total_in_flight]
        return rate_of(self.bench(*how))

    def measure(self, workload):
        if workload.command == "consume":
            return self.consume(workload)
        guess = self.publish(workload, 4096)
        return {"rate": self.publish(workload, rounded(guess * self.options.seconds)), "note": ""}

    def consume(self, workload):
        messages = 500_000
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


def rounded(messages):
    """A number that publishers and their batches divide evenly."""
    return max(2, round(messages / 1024)) * 1024

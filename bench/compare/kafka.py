"""Apache Kafka, loaded by its own performance tools.

They do not measure latency as the others do (a record waits in the client too), so only rates are taken. Each run reports
every second; what was reported after the warm-up counts.
"""

import re
import time
from statistics import mean

import fetch
import machine
from peer import Peer

# As kafka-run-class.sh has them.
JVM = ["-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
       "-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true"]

# A JVM on one core needs so long before it sends at full speed.
TOOL_WARM_UP_SECONDS = 8


class Kafka(Peer):
    is_jvm = True

    def __init__(self, options, each):
        self.each = each
        self.name = "Kafka flush each" if each else "Kafka"
        self.durable = each
        self.settings = ("KRaft, one node, 4 partitions, acks=all, the JVM options of its scripts with a heap of 1 GB; one "
                         "record a batch where one message a request is asked for, else batches of its default 16 KiB "
                         "and linger.ms=5" + (", flush.messages=1" if each else ", its default flush: the page cache"))
        super().__init__(options)

    def prepare(self):
        self.jars = fetch.jars(self.options.cache, "kafka")

    def can(self, workload):
        return not workload.json and workload.command != "mixed" and workload.topics == 1 and \
            workload.key != "catch-up-32"

    def java(self, name, heap, *args):
        return ["java", *heap, *JVM, "-cp", f"{self.jars}/*", name, *args]

    def tool(self, name, *args, timeout=60):
        return machine.run(self.java(name, ["-Xmx512M"], *args), self.generator_cores, timeout)

    def start(self):
        self.fresh()
        config = self.dir / "server.properties"
        config.write_text("\n".join([
            "process.roles=broker,controller", "node.id=1", f"controller.quorum.voters=1@127.0.0.1:{self.port + 1}",
            f"listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.port + 1}",
            "controller.listener.names=CONTROLLER", f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}",
            f"log.dirs={self.dir}/data", "num.partitions=4", "offsets.topic.replication.factor=1",
            "share.coordinator.state.topic.replication.factor=1", "share.coordinator.state.topic.min.isr=1",
            "transaction.state.log.replication.factor=1", "transaction.state.log.min.isr=1",
            *(["log.flush.interval.messages=1"] if self.each else []), ""]))
        self.tool("kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", config)
        self.launch(self.java("kafka.Kafka", ["-Xmx1G", "-Xms1G"], config), self.port)
        self.filled = {}

    def producer(self, topic, records, size, properties):
        return self.java("org.apache.kafka.tools.ProducerPerformance", ["-Xmx512M"], "--bootstrap-server",
                         f"127.0.0.1:{self.port}", "--topic", topic, "--num-records", records, "--record-size", size,
                         "--throughput", -1, "--reporting-interval", 1000, "--command-property", *properties)

    def create(self, topic):
        """A topic in which every append is flushed, where that is asked for."""
        args = ["--config", "flush.messages=1"] if self.each else []
        self.tool("org.apache.kafka.tools.TopicCommand", "--bootstrap-server", f"127.0.0.1:{self.port}", "--create",
                  "--if-not-exists", "--topic", topic, "--partitions", 4, "--replication-factor", 1, *args)

    def warm(self):
        self.create("load")
        machine.run_for(self.producer("load", 10**9, 1024, producer_properties(64, False)), self.generator_cores, 6,
                        self.log("warm"))

    def measure(self, workload):
        if workload.command == "consume":
            return self.consume(workload)
        properties = producer_properties(workload.total_in_flight, workload.batch > 1)
        seconds = TOOL_WARM_UP_SECONDS + self.options.seconds
        log = self.log(workload.key)
        before, since = machine.processor_seconds(self.server.pid), time.monotonic()
        out = machine.run_for(self.producer("load", 10**9, workload.size, properties), self.generator_cores, seconds + 1, log)
        used = machine.processor_seconds(self.server.pid) - before
        # The first report is the one in which it begins.
        windows = reports_of(out)[1:][-self.options.seconds:]
        if not windows:
            return {"note": f"it reported nothing: {out.strip()[-200:]}"}
        # What the tool took to start is no load on the server.
        return {"rate": mean(windows), "server_busy": round(used / (time.monotonic() - since), 3), "note": ""}

    def consume(self, workload):
        """All that was produced before, from the first record on; enough of it that the start of the JVM weighs little."""
        if workload.size not in self.filled:
            topic = f"catch-up-{workload.size}"
            self.create(topic)
            log = self.log(topic)
            properties = ["acks=1", "linger.ms=5", "batch.size=131072"]
            records = 3_000_000 if workload.size < 1024 else 1_000_000
            out = machine.run_for(self.producer(topic, records, workload.size, properties), self.generator_cores, 16, log)
            self.filled[workload.size] = (topic, count_of(out))
        topic, records = self.filled[workload.size]
        out = self.tool("org.apache.kafka.tools.ConsumerPerformance", "--bootstrap-server", f"127.0.0.1:{self.port}",
                        "--topic", topic, "--messages", records, "--timeout", 20000)
        return {"rate": consumed(out), "note": ""}

    def seconds_for(self, workload):
        return self.options.seconds + TOOL_WARM_UP_SECONDS + (20 if workload.command == "consume" else 4)

    def version(self):
        return fetch.jar_version(self.jars, "kafka_2.13")


def producer_properties(in_flight, batches):
    """One record a batch, so many requests on their way; or batches as the producer makes them by default."""
    if batches:
        return ["acks=all"]
    return ["acks=all", "batch.size=1", "linger.ms=0", "enable.idempotence=false",
            f"max.in.flight.requests.per.connection={in_flight}"]


def reports_of(text):
    """Records a second in each report of ProducerPerformance."""
    return [float(rate) for rate in re.findall(r"records sent, ([\d.]+) records/sec", text)]


def count_of(text):
    """How many records it reported in all: the last line is a total where it came to its end."""
    counts = [int(count) for count in re.findall(r"(\d+) records sent", text)]
    return counts[-1] if "99.9th" in text else sum(counts)


def consumed(text):
    """Records a second while fetching, without the time to join its group, as ConsumerPerformance reports them."""
    columns, values = [line.split(",") for line in text.splitlines() if line.count(",") > 5][-2:]
    figures = dict(zip([column.strip() for column in columns], values))
    return float(figures["fetch.nMsg.sec"])

"""What is compared: how each is set up, started, loaded and stopped.

A peer is set up as its own documents recommend for one node; what was changed for the comparison is said in `settings`.
`measure` gives a dictionary with `rate` (messages a second) and, where the tool measures it as the others do, `p50_ms` and
`p99_ms`; or None where the workload cannot be compared.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import machine
from machine import Absent

HERE = Path(__file__).resolve().parent

JAVA_OPENS = ["--add-opens=java.base/java.nio=ALL-UNNAMED", "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
              "--add-opens=java.base/jdk.internal.misc=ALL-UNNAMED", "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED"]


class Peer:
    name = ""
    durable = False
    settings = ""

    def __init__(self, options):
        self.options = options
        self.dir = options.dir / self.name.replace(" ", "-")
        self.server = None

    def prepare(self):
        """Fetches what is needed; raises Absent."""

    def start(self):
        raise NotImplementedError

    def stop(self):
        machine.stop(self.server)
        self.server = None

    def fresh(self):
        shutil.rmtree(self.dir, ignore_errors=True)
        self.dir.mkdir(parents=True)

    def log(self, name="server"):
        return self.dir / f"{name}.log"

    def launch(self, command, port):
        self.server = machine.start(command, self.options.server_core, self.log(), cwd=self.dir)
        machine.wait_for_port(port, self.server, self.log())

    def version(self):
        return ""

    def memory_mb(self):
        return machine.most_memory_mb(self.server) if self.server else 0.0


class RocketmqProtocol(Peer):
    """Whatever `corelane bench` can load."""

    port = 0
    can_consume = True

    def generate(self, command, args, seconds):
        out = self.dir / "out.json"
        out.unlink(missing_ok=True)
        command = [*self.options.bench, command, "--broker", f"127.0.0.1:{self.port}",
                   "--cores", self.options.generator_core, "--json", out, "--quiet", "--drain", "5s", *args]
        # The generator ends with 1 where requests were refused or lost; the figures are there all the same.
        machine.run(command, self.options.generator_core, seconds + 120, check=False)
        if not out.exists():
            raise RuntimeError(f"the generator left no results for {self.name}")
        return json.loads(out.read_text())

    def measure(self, workload):
        seconds = self.options.seconds
        if workload.command != "send" and not self.can_consume:
            return None
        length = ["--duration", f"{seconds}s", "--warm-up", f"{self.options.warm_up}s"]
        if workload.command == "consume":
            topic = ["--topic", "CatchUp"]
            self.generate("send", [*topic, *length, "--size", workload.size, "--batch", "16"], seconds)
            outcome = self.generate("consume", topic, 300)
        else:
            outcome = self.generate(workload.command, [*length, *workload.generator()], seconds)
        track = {"consume": "pull", "send": "send", "mixed": "receipt"}[workload.command]
        found = next((found for found in outcome["tracks"] if found["track"] == track), None)
        if found is None:
            return {"rate": 0.0, "note": "nothing was answered"}
        notes = []
        if found["counts"]["errors"]:
            notes.append(f"{found['counts']['errors']} errors")
        if outcome["unanswered"]:
            notes.append(f"{outcome['unanswered']} without an answer")
        if outcome["generator"]["limited"]:
            notes.append("limited by the generator")
        figures = {"rate": found["messagesPerSecond"], "note": ", ".join(notes)}
        if workload.command != "consume":
            figures["p50_ms"] = found["latency"]["p50Ns"] / 1e6
            figures["p99_ms"] = found["latency"]["p99Ns"] / 1e6
        return figures


class Raw(RocketmqProtocol):
    can_consume = False

    def __init__(self, options, mode):
        self.mode = mode
        self.name = f"raw {mode}"
        self.durable = mode == "write"
        self.settings = {"answer": "answers at once, keeps nothing",
                         "write": "answers after one O_DIRECT, O_DSYNC write of all requests of a turn"}[mode]
        super().__init__(options)
        self.port = options.port

    def start(self):
        self.fresh()
        self.launch([*self.options.bench, "raw", "--mode", self.mode, "--port", self.port, "--dir", self.dir,
                     "--core", self.options.server_core], self.port)


class Corelane(RocketmqProtocol):
    def __init__(self, options, flush):
        self.name = f"Corelane {flush}"
        self.durable = flush == "sync"
        self.settings = f"one shard, flush = {flush}, everything else as it is by default"
        self.flush = flush
        super().__init__(options)
        self.port = options.port

    def prepare(self):
        if self.options.corelane is None:
            raise Absent("no program was given with --corelane")

    def start(self):
        self.fresh()
        self.launch([self.options.corelane, "start", "--data-dir", self.dir / "data", "--port", self.port,
                     "--nameserver-port", self.options.port + 5000, "--shards", 1, "--cores", self.options.server_core,
                     "--flush", self.flush], self.port)

    def version(self):
        return machine.run([self.options.corelane, "version"], self.options.generator_core, 20).strip()


class Rocketmq(RocketmqProtocol):
    def __init__(self, options, flush):
        self.flush = flush
        self.name = f"Apache RocketMQ {flush.split('_')[0]}"
        self.durable = flush == "SYNC_FLUSH"
        self.settings = f"flushDiskType={flush}, heap 2 GB, requests may wait 5 s in the broker's queue"
        super().__init__(options)
        self.port = options.port
        self.nameserver = None

    def prepare(self):
        self.jars = fetch_jars(self.options, "rocketmq")

    def java(self, name, heap, *args):
        return ["java", *JAVA_OPENS, f"-Xms{heap}", f"-Xmx{heap}", "-XX:MaxDirectMemorySize=2g", "-XX:+UseG1GC",
                f"-Duser.home={self.dir}", f"-Drocketmq.home.dir={self.dir}", "-cp", f"{self.jars}/*",
                f"org.apache.rocketmq.{name}", *args]

    def start(self):
        self.fresh()
        (self.dir / "conf").mkdir()
        port = self.options.port + 5000
        names, broker = self.dir / "namesrv.conf", self.dir / "broker.conf"
        names.write_text(f"listenPort={port}\nbindAddress=127.0.0.1\n")
        log = self.log("namesrv")
        self.nameserver = machine.start(self.java("namesrv.NamesrvStartup", "512m", "-c", names),
                                        self.options.generator_core, log, cwd=self.dir)
        machine.wait_for_port(port, self.nameserver, log)
        broker.write_text("\n".join([
            "brokerClusterName=DefaultCluster", "brokerName=broker-a", "brokerId=0", "brokerIP1=127.0.0.1",
            "bindAddress=127.0.0.1", f"listenPort={self.port}", f"namesrvAddr=127.0.0.1:{port}",
            f"storePathRootDir={self.dir}/store", f"storePathCommitLog={self.dir}/store/commitlog",
            f"flushDiskType={self.flush}", "waitTimeMillsInSendQueue=5000", "diskMaxUsedSpaceRatio=95", ""]))
        self.launch(self.java("broker.BrokerStartup", "2g", "-c", broker), self.port)

    def stop(self):
        super().stop()
        machine.stop(self.nameserver)
        self.nameserver = None

    def version(self):
        return jar_version(self.jars, "rocketmq-broker")


class Kafka(Peer):
    """Loaded by its own performance tools, which do not measure latency as the others do: a record waits in the client too."""

    def __init__(self, options, each):
        self.each = each
        self.name = "Kafka flush each" if each else "Kafka"
        self.durable = each
        self.settings = ("KRaft, one node, 4 partitions, acks=all, heap 1 GB; one record a batch where one message a "
                         "request is asked for" + (", flush.messages=1" if each else ""))
        super().__init__(options)
        self.port = options.port

    def prepare(self):
        self.jars = fetch_jars(self.options, "kafka")

    def java(self, name, heap, *args):
        return ["java", f"-Xms{heap}", f"-Xmx{heap}", "-XX:+UseG1GC", "-cp", f"{self.jars}/*", name, *args]

    def tool(self, name, *args, timeout=600):
        command = self.java(name, "512m", *args)
        return machine.run(command, self.options.generator_core, timeout)

    def start(self):
        self.fresh()
        config = self.dir / "server.properties"
        config.write_text("\n".join([
            "process.roles=broker,controller", "node.id=1", f"controller.quorum.voters=1@127.0.0.1:{self.port + 1}",
            f"listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.port + 1}",
            "controller.listener.names=CONTROLLER", f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}",
            f"log.dirs={self.dir}/data", "num.partitions=4", "offsets.topic.replication.factor=1",
            "share.coordinator.state.topic.replication.factor=1", "share.coordinator.state.topic.min.isr=1",
            "transaction.state.log.replication.factor=1", "transaction.state.log.min.isr=1", ""]))
        self.tool("kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", config)
        self.launch(self.java("kafka.Kafka", "1g", config), self.port)

    def create_topic(self, topic):
        args = ["--config", "flush.messages=1"] if self.each else []
        self.tool("org.apache.kafka.tools.TopicCommand", "--bootstrap-server", f"127.0.0.1:{self.port}", "--create",
                  "--if-not-exists", "--topic", topic, "--partitions", "4", "--replication-factor", "1", *args)

    def produce(self, topic, records, workload):
        props = [f"bootstrap.servers=127.0.0.1:{self.port}", "acks=all", "enable.idempotence=false",
                 f"max.in.flight.requests.per.connection={workload.total_in_flight}"]
        # A batch of its own for every record, or what fits into the default.
        props += ["batch.size=1", "linger.ms=0"] if workload.batch == 1 and workload.command == "send" else []
        out = self.tool("org.apache.kafka.tools.ProducerPerformance", "--topic", topic, "--num-records", str(records),
                        "--record-size", str(workload.size), "--throughput", "-1", "--producer-props", *props)
        return float(re.findall(r"([\d.]+) records/sec", out)[-1])

    def measure(self, workload):
        if workload.json or workload.command == "mixed":
            return None
        topic = workload.key
        self.create_topic(topic)
        if workload.command == "consume":
            records = 200_000 if self.each else 2_000_000
            self.produce(topic, records, workload)
            out = self.tool("org.apache.kafka.tools.ConsumerPerformance", "--bootstrap-server",
                            f"127.0.0.1:{self.port}", "--topic", topic, "--messages", str(records),
                            "--timeout", "60000")
            columns, values = [line.split(",") for line in out.splitlines() if "," in line][-2:]
            figures = dict(zip([column.strip() for column in columns], values))
            return {"rate": float(figures["fetch.nMsg.sec"]), "note": "without the time to join its group"}
        return {"rate": long_enough(lambda records: self.produce(topic, records, workload), self.options.seconds)}

    def version(self):
        return jar_version(self.jars, "kafka-server-4") or jar_version(self.jars, "kafka-clients")


class Nats(Peer):
    """Loaded by the bench of its own command-line program, where that is installed."""

    def __init__(self, options, always):
        self.name = "NATS JetStream always" if always else "NATS JetStream"
        self.durable = always
        self.always = always
        self.settings = "one node, file storage" + (", sync_interval: always" if always else ", its default sync_interval")
        super().__init__(options)
        self.port = options.port

    def prepare(self):
        self.program = find_go(self.options, "nats-server", "github.com/nats-io/nats-server/v2@latest")
        self.client = find_go(self.options, "nats", "github.com/nats-io/natscli/nats@latest")

    def start(self):
        self.fresh()
        config = self.dir / "nats.conf"
        sync = "  sync_interval: always\n" if self.always else ""
        config.write_text(f'listen: "127.0.0.1:{self.port}"\njetstream {{\n  store_dir: "{self.dir}/data"\n{sync}}}\n')
        self.launch([self.program, "-c", config], self.port)

    def measure(self, workload):
        if workload.command != "send" or workload.batch > 1 or workload.json:
            return None
        if workload.total_in_flight > 64:
            return None  # its synchronous publishers have one message in flight, each on a connection of its own

        def publish(messages):
            out = machine.run([self.client, "-s", f"nats://127.0.0.1:{self.port}", "bench", "js", "pub", "sync", "bench",
                               "--create", "--purge", "--storage", "file", "--no-progress", "--size", workload.size,
                               "--msgs", messages, "--clients", workload.total_in_flight],
                              self.options.generator_core, 600)
            return float(re.findall(r"([\d,]+) msgs/sec", out)[-1].replace(",", ""))

        return {"rate": long_enough(publish, self.options.seconds)}

    def version(self):
        return machine.run([self.program, "--version"], self.options.generator_core, 20).strip()


def long_enough(go, seconds):
    """The rate of a tool that is given a number of messages: more and more of them, until they take so many seconds."""
    messages = 2_000
    while True:
        rate = go(messages)
        if messages / rate >= seconds:
            return rate
        messages = int(min(messages * 10, max(messages * 2, rate * seconds * 1.2)))


def fetch_jars(options, name):
    """The jars that NAME.xml lists, fetched once."""
    jars = options.cache / name
    done = jars / ".complete"
    if done.exists():
        return jars
    for program in ["java", "mvn"]:
        if shutil.which(program) is None:
            raise Absent(f"{program} is not installed")
    fetched = subprocess.run(["mvn", "-q", "-B", "-f", HERE / f"{name}.xml", "dependency:copy-dependencies",
                              f"-DoutputDirectory={jars}", "-DincludeScope=runtime"], capture_output=True, text=True)
    if fetched.returncode != 0:
        raise Absent(f"Maven cannot fetch it: {(fetched.stdout or fetched.stderr).strip().splitlines()[-1][:200]}")
    done.touch()
    return jars


def jar_version(jars, name):
    found = sorted(jars.glob(f"{name}*.jar"))
    return found[0].stem if found else ""


def find_go(options, program, module):
    """A program that is installed, or built once from the Go module proxy."""
    installed = shutil.which(program)
    if installed:
        return installed
    built = options.cache / "bin" / program
    if built.exists():
        return built
    if shutil.which("go") is None:
        raise Absent(f"{program} and Go are not installed")
    done = subprocess.run(["go", "install", module], capture_output=True, text=True,
                          env={**os.environ, "GOBIN": str(options.cache / "bin")})
    if done.returncode != 0:
        raise Absent(f"`go install {module}` failed: {done.stderr.strip().splitlines()[-1].strip()[:200]}")
    return built


def all_peers(options):
    return [
        Raw(options, "answer"), Raw(options, "write"),
        Corelane(options, "sync"), Corelane(options, "async"),
        Rocketmq(options, "SYNC_FLUSH"), Rocketmq(options, "ASYNC_FLUSH"),
        Kafka(options, True), Kafka(options, False),
        Nats(options, True), Nats(options, False),
    ]

"""Servers that speak RocketMQ's protocol, loaded by `corelane bench`: Corelane, Apache RocketMQ, and the raw ones."""

import json

import fetch
import machine
from peer import Peer

# As bin/runbroker.sh of the distribution has them, but for the heap, and without GC logs.
BROKER_JVM = ["-server", "-XX:+UseG1GC", "-XX:G1HeapRegionSize=16m", "-XX:G1ReservePercent=25",
              "-XX:InitiatingHeapOccupancyPercent=30", "-XX:SoftRefLRUPolicyMSPerMB=0", "-XX:-OmitStackTraceInFastThrow",
              "-XX:+AlwaysPreTouch", "-XX:MaxDirectMemorySize=15g", "-XX:-UseLargePages"]

JAVA_OPENS = ["--add-opens=java.base/java.nio=ALL-UNNAMED", "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
              "--add-opens=java.base/jdk.internal.misc=ALL-UNNAMED", "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED"]

# Which figures of a workload count.
TRACKS = {"consume": "pull", "send": "send", "mixed": "receipt"}


class Protocol(Peer):
    """Whatever `corelane bench` can load."""

    can_consume = True

    def __init__(self, options):
        super().__init__(options)
        self.brokers = [f"127.0.0.1:{self.port}"]
        self.filled = {}

    def can(self, workload):
        wide = workload.topics > 1
        return (workload.command == "send" or self.can_consume) and not wide

    def generate(self, command, args, seconds):
        out = self.dir / "out.json"
        out.unlink(missing_ok=True)
        brokers = [word for broker in self.brokers for word in ["--broker", broker]]
        command = [*self.options.bench, command, *brokers, "--cores", ",".join(map(str, sorted(self.generator_cores))),
                   "--json", out, "--quiet", "--drain", "5s", *args]
        # The generator ends with 1 where requests were refused or lost; the figures are there all the same.
        machine.run(command, self.generator_cores, seconds + 60, check=False)
        if not out.exists():
            raise RuntimeError(f"the generator left no results for {self.name}")
        return json.loads(out.read_text())

    def measure(self, workload):
        seconds = self.options.seconds
        length = ["--duration", f"{seconds}s", "--warm-up", f"{self.options.warm_up}s"]
        if workload.command == "consume":
            return figures_of(self.generate("consume", [*self.fill_topic(workload), *workload.generator()], 60), "consume")
        return figures_of(self.generate(workload.command, [*length, *workload.generator()], seconds), workload.command)

    def fill_topic(self, workload):
        """A topic with as much as can be sent in so many seconds, once a start of the server."""
        if workload.size not in self.filled:
            topic = ["--topic", f"CatchUp{self.server.pid}x{workload.size}"]
            args = ["--duration", f"{self.options.seconds}s", "--warm-up", "1s", "--size", workload.size, "--batch", "16"]
            self.generate("send", [*topic, *args], self.options.seconds)
            self.filled[workload.size] = topic
        return self.filled[workload.size]

    def seconds_for(self, workload):
        return super().seconds_for(workload) * (2 if workload.command == "consume" else 1)

    def stop(self):
        super().stop()
        self.filled = {}


def figures_of(outcome, command):
    """What of the generator's JSON is kept."""
    found = next((found for found in outcome["tracks"] if found["track"] == TRACKS[command]), None)
    if found is None:
        return {"note": "nothing was answered"}
    notes = []
    if found["counts"]["errors"]:
        codes = ", ".join(found.get("codes", {}))
        notes.append(f"{found['counts']['errors']} errors (codes: {codes})")
    if outcome["unanswered"]:
        notes.append(f"{outcome['unanswered']} without an answer")
    if outcome["closed"]:
        notes.append(f"{len(outcome['closed'])} connections ended: {outcome['closed'][0]}")
    if outcome["generator"]["limited"]:
        notes.append("limited by the generator")
    threads = outcome["generator"]["threads"]
    figures = {"rate": found["messagesPerSecond"], "mb_per_second": found["bytesPerSecond"] / 1e6, "note": ", ".join(notes),
               "generator_busy": round(max((thread["busy"] for thread in threads), default=0.0), 3)}
    if command != "consume":
        figures["p50_ms"] = found["latency"]["p50Ns"] / 1e6
        figures["p99_ms"] = found["latency"]["p99Ns"] / 1e6
    return figures


class Raw(Protocol):
    can_consume = False

    def __init__(self, options, mode):
        self.mode = mode
        self.name = f"raw {mode}"
        self.durable = mode == "write"
        self.settings = {"answer": "answers at once, keeps nothing",
                         "write": "answers after one O_DIRECT, O_DSYNC write of all requests of a turn"}[mode]
        super().__init__(options)

    def can(self, workload):
        return workload.command == "send"

    def start(self):
        self.fresh()
        self.launch([*self.options.bench, "raw", "--mode", self.mode, "--port", self.port, "--dir", self.dir,
                     "--core", self.options.server_core], self.port)


class Corelane(Protocol):
    """`filled`: the log was filled once, so that its segments are used again, as they are when retention has begun."""

    def __init__(self, options, flush, filled=True, shards=1):
        self.flush, self.filled_log, self.shards = flush, filled, shards
        self.name = f"Corelane {flush}" + ("" if filled else ", empty") + (f", {shards} shards" if shards > 1 else "")
        self.durable = flush == "sync"
        self.keys = {}
        if filled:
            # Several logs share the disk space of one.
            self.keys["retention_bytes"] = f"{size_of(options.retention) // shards >> 20}MiB"
            if shards > 1:
                self.keys["segment_bytes"] = f"{1024 // shards}MiB"
        self.settings = ", ".join([
            f"flush={flush}", f"{shards} shard{'s' if shards > 1 else ''}", *(f"{key}={value}" for key, value in self.keys.items()),
            f"{options.fill} sent before, so that segments are used again" if filled else
            "an empty directory: segments are written with zeros first, on the same disk"])
        super().__init__(options)
        if shards > 1:
            self.server_cores |= self.generator_cores
            self.generator_cores = self.server_cores
            self.settings += ", both cores, which the generator shares"
        self.brokers = [f"127.0.0.1:{self.port + 10 * shard}" for shard in range(shards)]

    @property
    def dir(self):
        # Both ways of flushing go over the same filled log.
        return self.options.dir / "corelane-filled" if self.keeps_data else super().dir

    @property
    def keeps_data(self):
        return self.filled_log and self.shards == 1

    def prepare(self):
        if self.options.corelane is None:
            raise machine.Absent("no program was given with --corelane")

    def can(self, workload):
        if not self.filled_log or self.shards > 1:
            return workload.key in ("one", "sixty-four", "thousand", "batch")
        return super().can(workload) or workload.topics > 1

    def start(self):
        done = self.dir / "filled"
        if not (self.keeps_data and done.exists()):
            self.fresh()
        command = [self.options.corelane, "start", "--data-dir", self.dir / "data", "--port", self.port, "--listen-address",
                   "127.0.0.1", "--nameserver-port", self.port + 500, "--shards", self.shards, "--cores",
                   ",".join(map(str, sorted(self.server_cores))), "--flush", self.flush]
        for key, value in self.keys.items():
            command += ["--set", f"{key}={value}"]
        self.launch(command, self.port)
        if self.filled_log and not done.exists():
            self.fill()
            done.touch()

    def fill(self):
        """Large bodies fill the log as fast as the disk goes."""
        body = 256 << 10
        count = size_of(self.options.fill) // body
        self.generate("send", ["--topic", "Fill", "--size", body, "--connections", 4 * self.shards, "--in-flight", 4,
                               "--count", count, "--warm-up", "0s", "--duration", "120s"], 120)

    def clean(self):
        if not self.keeps_data:
            super().clean()

    def version(self):
        return machine.run([self.options.corelane, "version"], self.generator_cores, 20).strip()

    def seconds_for(self, workload):
        return super().seconds_for(workload) + (10 if workload.topics > 1 else 0)


def size_of(text):
    """`5GiB` in bytes."""
    units = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
    return next((int(text[:-3]) * factor for unit, factor in units.items() if text.endswith(unit)), None) or int(text)


class Rocketmq(Protocol):
    is_jvm = True

    def __init__(self, options, flush):
        self.flush = flush
        self.name = f"Apache RocketMQ {flush.split('_')[0]}"
        self.durable = flush == "SYNC_FLUSH"
        self.settings = (f"flushDiskType={flush}, the JVM options of runbroker.sh with a heap of {options.heap}, "
                         "waitTimeMillsInSendQueue=5000 (its 200 ms refuse sends here), else defaults; warmed for 6 s")
        super().__init__(options)
        self.nameserver = None

    def prepare(self):
        self.jars = fetch.jars(self.options.cache, "rocketmq")

    def java(self, name, heap, jvm, *args):
        return ["java", *JAVA_OPENS, f"-Xms{heap}", f"-Xmx{heap}", *jvm, f"-Duser.home={self.dir}",
                f"-Drocketmq.home.dir={self.dir}", "-cp", f"{self.jars}/*", f"org.apache.rocketmq.{name}", *args]

    def start(self):
        self.fresh()
        (self.dir / "conf").mkdir()
        port = self.port + 500
        names, broker = self.dir / "namesrv.conf", self.dir / "broker.conf"
        names.write_text(f"listenPort={port}\nbindAddress=127.0.0.1\n")
        log = self.log("namesrv")
        self.nameserver = machine.start(self.java("namesrv.NamesrvStartup", "512m", [], "-c", names), self.generator_cores,
                                        log, cwd=self.dir)
        machine.wait_for_port(port, self.nameserver, log)
        broker.write_text("\n".join([
            "brokerClusterName=DefaultCluster", "brokerName=broker-a", "brokerId=0", "brokerIP1=127.0.0.1",
            "bindAddress=127.0.0.1", f"listenPort={self.port}", f"namesrvAddr=127.0.0.1:{port}",
            f"storePathRootDir={self.dir}/store", f"storePathCommitLog={self.dir}/store/commitlog",
            f"flushDiskType={self.flush}", "waitTimeMillsInSendQueue=5000", "diskMaxUsedSpaceRatio=95", ""]))
        self.launch(self.java("broker.BrokerStartup", self.options.heap, BROKER_JVM, "-c", broker), self.port)

    def warm(self):
        self.generate("send", ["--duration", "5s", "--warm-up", "1s"], 6)

    def stop(self):
        super().stop()
        machine.stop(self.nameserver)
        self.nameserver = None

    def version(self):
        return fetch.jar_version(self.jars, "rocketmq-broker")

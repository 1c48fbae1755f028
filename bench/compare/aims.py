"""The figures that Corelane is to reach, as ratios within one run. Aims are bounds from below."""

from dataclasses import dataclass

# Of every server of ours.
MOST_MEMORY_MB = 256

OTHERS = {True: ["kafka-flush-each", "nats-jetstream-always"], False: ["kafka", "nats-jetstream"]}


@dataclass(frozen=True)
class Aim:
    what: str
    bound: float
    key: str
    ours: str
    theirs: tuple  # slugs; the best of them counts
    figure: str = "rate"
    their_key: str = ""  # where it is another workload
    unit: str = "x"

    def reached(self, cell):
        """The ratio, or None where something was not measured."""
        mine = figure(cell(self.ours, self.key), self.figure)
        if not self.theirs:
            return mine
        values = [figure(cell(slug, self.their_key or self.key), self.figure) for slug in self.theirs]
        values = [value for value in values if value]
        if not mine or not values:
            return None
        # The smaller latency is the better one.
        return mine / max(values) if self.figure == "rate" else min(values) / mine

    def show(self, value):
        if self.unit == "/s":
            return f"{value:,.0f} /s"
        if self.unit == "MB/s":
            return f"{value:,.0f} MB/s"
        return f"{value:.2f} x" if value < 10 else f"{value:.0f} x"


def figure(cell, name):
    return getattr(cell, name) if cell else None


def against(durable, what, key, raw=None, apache=None, others=None, kafka=None):
    ours = "corelane-sync" if durable else "corelane-async"
    rows = [("raw", raw, ("raw-write",) if durable else ("raw-answer",)),
            ("Apache RocketMQ", apache, ("apache-rocketmq-sync",) if durable else ("apache-rocketmq-async",)),
            ("the best of Kafka and NATS", others, tuple(OTHERS[durable])),
            ("Kafka", kafka, tuple(OTHERS[durable][:1]))]
    return [Aim(f"{what}, against {name}", bound, key, ours, slugs) for name, bound, slugs in rows if bound]


AIMS = [
    *against(True, "durable, 1 in flight", "one", raw=0.8),
    *against(True, "durable, 64 in flight", "sixty-four", raw=0.8, apache=15, others=10),
    Aim("durable, 64 in flight: Apache's p99 as a multiple of ours", 10, "sixty-four", "corelane-sync",
        ("apache-rocketmq-sync",), "p99_ms"),
    *against(True, "durable, 1,024 in flight", "thousand", raw=0.65),
    *against(True, "durable, 128 B x 16", "batch", raw=0.5, apache=10, kafka=3),
    *against(False, "from memory, 1 in flight", "one", raw=0.6, apache=15, others=5),
    *against(False, "from memory, 64 in flight", "sixty-four", raw=0.6, apache=15, others=5),
    *against(False, "from memory, 1,024 in flight", "thousand", raw=0.45),
    *against(False, "from memory, 128 B x 16", "batch", raw=0.35, apache=10, kafka=3),
    Aim("catch-up pull of 128 B", 2e6, "catch-up", "corelane-sync", (), unit="/s"),
    Aim("or catch-up pull of 1 KiB", 1000, "catch-up-1k", "corelane-sync", (), "mb_per_second", unit="MB/s"),
    Aim("catch-up pull of 128 B, against Apache RocketMQ", 5, "catch-up", "corelane-sync", ("apache-rocketmq-sync",)),
    Aim("catch-up pull of 128 B, against Kafka", 1, "catch-up", "corelane-sync", ("kafka-flush-each", "kafka")),
    *against(True, "send and consume together", "mixed", apache=10),
    Aim("two shards on both cores, against one with its own core: 64 in flight", 1, "sixty-four", "corelane-sync-2-shards",
        ("corelane-sync",)),
    Aim("two shards on both cores, against one with its own core: 1,024 in flight", 1, "thousand", "corelane-sync-2-shards",
        ("corelane-sync",)),
    Aim("10,000 queues and connections, against 4 queues and 64 connections", 0.9, "wide", "corelane-sync",
        ("corelane-sync",), their_key="thousand"),
    Aim("10,000 connections that all send, against the same", 0.9, "wide-all", "corelane-sync", ("corelane-sync",),
        their_key="thousand"),
    Aim("JSON headers, against binary ones, 1,024 in flight", 0.75, "json", "corelane-sync", ("corelane-sync",),
        their_key="thousand"),
]

"""What is measured: the same for every peer, as far as its tools can do it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    key: str
    title: str
    size: int = 1024
    connections: int = 16
    in_flight: int = 4  # on each connection
    batch: int = 1
    json: bool = False  # headers as Java's clients write them by default
    command: str = "send"
    pull_messages: int = 1024  # most messages that a pull asks for
    topics: int = 1
    queues: int = 4  # of each topic
    idle: int = 0  # connections that only send heartbeats

    @property
    def total_in_flight(self):
        return self.connections * self.in_flight

    def generator(self):
        """The arguments of `corelane bench` behind the brokers' addresses."""
        if self.command == "consume":
            return ["--pull-messages", str(self.pull_messages)]
        args = ["--connections", str(self.connections), "--in-flight", str(self.in_flight), "--size", str(self.size),
                "--queues", str(self.queues)]
        if self.batch > 1:
            args += ["--batch", str(self.batch)]
        if self.json:
            args += ["--header", "json"]
        if self.topics > 1:
            args += ["--topic", "Wide", "--topics", str(self.topics)]
        if self.idle:
            args += ["--idle", str(self.idle)]
        return args


WORKLOADS = [
    Workload("one", "1 KiB, 1 in flight", connections=1, in_flight=1),
    Workload("sixty-four", "1 KiB, 64 in flight, 16 connections"),
    Workload("thousand", "1 KiB, 1,024 in flight, 64 connections", connections=64, in_flight=16),
    Workload("batch", "128 B in batches of 16, 64 in flight", size=128, batch=16),
    Workload("json", "1 KiB, 1,024 in flight, JSON headers", connections=64, in_flight=16, json=True),
    Workload("mixed", "1 KiB, send and receive, 64 in flight", command="mixed"),
    Workload("catch-up", "catch-up read of 128 B", size=128, command="consume"),
    Workload("catch-up-32", "the same, 32 messages a pull", size=128, command="consume", pull_messages=32),
    Workload("catch-up-1k", "catch-up read of 1 KiB", command="consume"),
    Workload("wide", "10,000 queues, 64 connections that send (1,024 in flight) and 9,936 idle ones", connections=64,
             in_flight=16, topics=1250, queues=8, idle=9936),
    Workload("wide-all", "10,000 queues, 10,000 connections with 1 in flight each", connections=10_000, in_flight=1,
             topics=1250, queues=8),
]

BY_KEY = {workload.key: workload for workload in WORKLOADS}

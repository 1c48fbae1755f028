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

    @property
    def total_in_flight(self):
        return self.connections * self.in_flight

    def generator(self):
        """The arguments of `corelane bench` behind the brokers' addresses."""
        args = [] if self.command == "consume" else [
            "--connections", str(self.connections), "--in-flight", str(self.in_flight), "--size", str(self.size)]
        if self.batch > 1:
            args += ["--batch", str(self.batch)]
        if self.json:
            args += ["--header", "json"]
        return args


WORKLOADS = [
    Workload("one", "1 KiB, 1 in flight", connections=1, in_flight=1),
    Workload("sixty-four", "1 KiB, 64 in flight, 16 connections"),
    Workload("thousand", "1 KiB, 1,024 in flight, 64 connections", connections=64, in_flight=16),
    Workload("batch", "128 B in batches of 16, 64 in flight", size=128, batch=16),
    Workload("json", "1 KiB, 64 in flight, JSON headers", json=True),
    Workload("mixed", "1 KiB, send and receive, 64 in flight", command="mixed"),
    Workload("catch-up", "catch-up read of 128 B", size=128, command="consume"),
]

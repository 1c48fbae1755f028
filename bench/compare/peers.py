"""Everybody who is compared, in the order of the table."""

from kafka import Kafka
from nats import Nats
from rocketmq import Corelane, Raw, Rocketmq


def all_peers(options):
    return [
        Raw(options, "write"), Corelane(options, "sync"), Corelane(options, "sync", filled=False),
        Corelane(options, "sync", shards=2), Rocketmq(options, "SYNC_FLUSH"), Kafka(options, True), Nats(options, True),
        Raw(options, "answer"), Corelane(options, "async"), Rocketmq(options, "ASYNC_FLUSH"), Kafka(options, False),
        Nats(options, False),
    ]

"""What the figures are read from, and what the page makes of them. Run with `python3 -m unittest discover bench/compare`."""

import json
import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

import aims
import kafka
import nats
import rocketmq
import table
from results import Results
from workloads import BY_KEY


def outcome(**changes):
    """The generator's JSON, as far as it is read."""
    track = {"track": "send", "messagesPerSecond": 1234.5, "bytesPerSecond": 2e6, "counts": {"errors": 0},
             "latency": {"p50Ns": 300_000, "p99Ns": 900_000}}
    return {"tracks": [track], "unanswered": 0, "closed": [],
            "generator": {"threads": [{"busy": 0.5}, {"busy": 0.75}], "limited": None}, **changes}


class Tools(unittest.TestCase):
    def test_the_generator(self):
        figures = rocketmq.figures_of(outcome(), "send")
        self.assertEqual((figures["rate"], figures["p50_ms"], figures["p99_ms"]), (1234.5, 0.3, 0.9))
        self.assertEqual((figures["generator_busy"], figures["note"]), (0.75, ""))
        self.assertNotIn("rate", rocketmq.figures_of(outcome(), "consume"))

    def test_what_went_wrong_is_noted(self):
        generator = {"threads": [], "limited": "it had no time left"}
        note = rocketmq.figures_of(outcome(unanswered=3, closed=["reset"], generator=generator), "send")["note"]
        refused = outcome()
        refused["tracks"][0].update(counts={"errors": 5}, codes={"2": 5})
        self.assertEqual(rocketmq.figures_of(refused, "send")["note"], "5 errors (codes: 2)")
        for part in ["3 without an answer", "1 connections ended: reset", "limited by the generator"]:
            self.assertIn(part, note)

    def test_kafka_producer(self):
        text = ("4521 records sent, 4512.0 records/sec (4.41 MB/sec), 1.2 ms avg latency, 300.0 ms max latency.\n"
                "9000 records sent, 8998.2 records/sec (8.79 MB/sec), 0.9 ms avg latency, 20.0 ms max latency.\n")
        self.assertEqual(kafka.reports_of(text), [4512.0, 8998.2])
        self.assertEqual(kafka.count_of(text), 13521)
        total = text + "20000 records sent, 7000.0 records/sec (6.8 MB/sec), 1 ms avg, 9 ms 50th, 9 ms 95th, 9 ms 99th, 9 ms 99.9th.\n"
        self.assertEqual(kafka.count_of(total), 20000)

    def test_kafka_consumer(self):
        text = ("start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, "
                "fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec\n"
                "2026-01-01 10:00:00:000, 2026-01-01 10:00:04:000, 122.07, 30.5, 1000000, 250000.0, 3000, 1000, 122.07, 1000000.0\n")
        self.assertEqual(kafka.consumed(text), 1_000_000.0)

    def test_nats(self):
        text = "Pub stats: 9,876 msgs/sec ~ 9.6 MiB/sec\n [1] 100 msgs/sec\nNATS JS publisher aggregated stats: 12,345 msgs/sec ~ 12 MiB/sec ~ 80us\n"
        self.assertEqual(nats.rate_of(text), 12345.0)

    def test_sizes(self):
        self.assertEqual((rocketmq.size_of("5GiB"), rocketmq.size_of("64KiB"), rocketmq.size_of("17")), (5 << 30, 65536, 17))


class Page(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.results = Results(Path(self.folder.name))
        self.results.describe_run({"machine": ["2 cores"], "seconds": 2, "warm_up": 1, "server_core": 0,
                                   "generator_core": 1, "absent": {"Kafka": "no Java"}})
        for slug, name, durable in [("raw-write", "raw write", True), ("corelane-sync", "Corelane sync", True),
                                    ("raw-answer", "raw answer", False)]:
            self.results.describe(slug, {"name": name, "durable": durable, "version": "1", "settings": "s"})
        used = {"server_busy": 0.5, "resident_mb": 100.0, "anonymous_mb": 99.0}
        for number, (raw, ours) in enumerate([(200_000, 100_000), (300_000, 150_000), (250_000, 170_000)], 1):
            self.results.add("raw-write", "sixty-four", number, {"rate": raw, "note": "", **used})
            self.results.add("corelane-sync", "sixty-four", number,
                             {"rate": ours, "p50_ms": 0.3, "p99_ms": 12.34, "note": "2 errors" if number == 2 else "", **used})

    def tearDown(self):
        self.folder.cleanup()

    def page(self):
        return table.page(self.results, ["raw-write", "corelane-sync", "raw-answer"], list(BY_KEY.values()))

    def test_medians_ratios_and_aims(self):
        page = self.page()
        self.assertIn("| 250 k (200 k to 300 k) | 150 k (100 k to 170 k) |", page)
        self.assertIn("| 0.60 x |", page)
        self.assertEqual(page.count(BY_KEY["sixty-four"].title), 4)  # rates, latencies, ratios, what it took
        self.assertIn("| 0.300 / 12.3 |", page)
        self.assertIn("| durable, 64 in flight, against raw | 0.80 x | 0.60 x | no |", page)
        self.assertIn("| 50 %, 100 MB |", page)
        self.assertIn("| at most 256 MB | 100 MB | yes |", page)

    def test_what_is_missing_is_said(self):
        page = self.page()
        self.assertIn("Kafka is absent: no Java", page)
        self.assertIn("Corelane sync, sixty-four: 2 errors", page)
        # Nobody was measured from memory, and no other workload was.
        self.assertNotIn("## Answered from memory", page)
        self.assertNotIn(BY_KEY["batch"].title, page)

    def test_a_failure_is_no_rate(self):
        self.results.add("corelane-sync", "one", 1, {"note": "failed: no"})
        self.results.add("raw-write", "one", 1, {"rate": 10.0, "note": ""})
        self.assertIn("| 10 | failed |", self.page())

    def test_results_are_kept(self):
        self.assertTrue(self.results.has("raw-write", "sixty-four", 3))
        self.assertFalse(self.results.has("raw-write", "sixty-four", 4))
        json.loads((Path(self.folder.name) / "raw-write" / "sixty-four.1.json").read_text())

    def test_rates_have_three_digits(self):
        shown = [table.rate(value) for value in [0, 961, 999.6, 12_345, 161_000, 999_700, 2_412_345, 11e6]]
        self.assertEqual(shown, ["0", "961", "1.00 k", "12.3 k", "161 k", "1.00 M", "2.41 M", "11.0 M"])


class Aims(unittest.TestCase):
    def test_every_aim_is_about_known_peers_and_workloads(self):
        options = type("Options", (), {"dir": Path("d"), "port": 1, "server_core": 0, "generator_core": 1, "retention": "1GiB",
                                       "fill": "1GiB", "heap": "1g", "corelane": Path("c"), "bench": [], "cache": Path("k")})
        import peers
        slugs = {peer.slug: peer for peer in peers.all_peers(options)}
        for aim in aims.AIMS:
            for slug in [aim.ours, *aim.theirs]:
                self.assertIn(slug, slugs)
            self.assertTrue(slugs[aim.ours].can(BY_KEY[aim.key]), aim)
            self.assertIn(aim.their_key or aim.key, BY_KEY)

    def test_the_best_of_the_others_counts_and_the_smaller_latency(self):
        cells = {("a", "k"): type("C", (), {"rate": 30.0, "p99_ms": 1.0}), ("b", "k"): type("C", (), {"rate": 10.0, "p99_ms": 9.0}),
                 ("c", "k"): type("C", (), {"rate": 20.0, "p99_ms": 8.0})}
        cell = lambda slug, key: cells.get((slug, key))
        self.assertEqual(aims.Aim("", 1, "k", "a", ("b", "c", "d")).reached(cell), 1.5)
        self.assertEqual(aims.Aim("", 1, "k", "a", ("b", "c"), "p99_ms").reached(cell), 8.0)
        self.assertEqual(aims.Aim("", 1, "k", "a", ()).reached(cell), 30.0)
        self.assertIsNone(aims.Aim("", 1, "k", "a", ("d",)).reached(cell))


if __name__ == "__main__":
    unittest.main()

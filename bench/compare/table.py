"""The results as one page of Markdown: medians, ratios, and under what conditions."""

from statistics import median

from aims import AIMS, MOST_MEMORY_MB

# Whom Corelane is held against, and which of its own results stands for it.
OURS = {True: "corelane-sync", False: "corelane-async"}


def page(results, order, workloads):
    """The whole page. `order` lists the slugs of peers as the columns are to come."""
    run, known = results.run(), results.peers()
    peers = [(slug, known[slug]) for slug in order if slug in known]
    cells = {(slug, workload.key): Cell(results.rounds(slug, workload.key)) for slug, _ in peers for workload in workloads}
    rounds = max((cell.rounds for cell in cells.values()), default=0)
    out = ["# Comparison", "",
           f"Server on core {run['server_core']}, load on core {run['generator_core']}, over loopback. Up to {rounds} rounds in "
           f"which all take turns, {run['seconds']} s each after {run['warm_up']} s of load; medians of the rounds. Every server "
           "starts anew in each round.", ""]
    out += [f"- {line}" for line in run["machine"]] + [""]
    for durable, title in [(True, "Answered when it is on the disk"), (False, "Answered from memory")]:
        members = [(slug, about["name"]) for slug, about in peers if about["durable"] == durable]
        shown = [workload for workload in workloads if any(cells[slug, workload.key].rate for slug, _ in members)]
        if shown:
            out += [f"## {title}", "", "Messages a second.", ""]
            out += grid(members, shown, lambda slug, key: cells[slug, key].show_rate()) + [""]
            out += latencies(members, shown, cells)
            out += ratios(members, shown, cells, OURS[durable])
            out += ["Processor time of the server over the whole call of the tool, as a part of its core, and the most memory "
                    "resident until then (of which no files of the page cache, where that differs).", ""]
            out += grid(members, shown, lambda slug, key: cells[slug, key].show_used()) + [""]
    out += aims(cells)
    out += ["## Who", "", "| peer | version | settings |", "|---|---|---|"]
    out += [f"| {about['name']} | {about['version']} | {about['settings']} |" for _, about in peers]
    out += ["", "## Not compared", ""]
    out += [f"- {name} is absent: {why}" for name, why in sorted(run["absent"].items())]
    out += ["- A dash: the peer, or its own tool, has no such workload. Rates of Kafka and NATS come from their own tools, "
            "whose latencies do not count from the same moment, so they have none here."]
    remarks = {}
    for (slug, key), cell in cells.items():
        for note in cell.notes:
            remarks.setdefault(f"{known[slug]['name']}, {key}: {note}", None)
    return "\n".join(out + ["", "## Remarks", ""] * bool(remarks) + [f"- {remark}" for remark in remarks]) + "\n"


class Cell:
    """What the rounds of one peer and workload come to."""

    def __init__(self, rounds):
        self.rounds = len(rounds)
        rates = sorted(figures["rate"] for figures in rounds if "rate" in figures)
        self.rate = median(rates) if rates else None
        self.least, self.most = (rates[0], rates[-1]) if rates else (None, None)
        self.p50_ms, self.p99_ms = middle(rounds, "p50_ms"), middle(rounds, "p99_ms")
        self.server_busy = middle(rounds, "server_busy")
        self.mb_per_second = middle(rounds, "mb_per_second")
        self.resident_mb = max((figures["resident_mb"] for figures in rounds if "resident_mb" in figures), default=None)
        self.anonymous_mb = max((figures["anonymous_mb"] for figures in rounds if "anonymous_mb" in figures), default=None)
        self.notes = sorted({figures["note"] for figures in rounds if figures.get("note")})

    def show_rate(self):
        if self.rate is None:
            return "failed" if self.notes else "-"
        spread = "" if self.rounds < 2 else f" ({rate(self.least)} to {rate(self.most)})"
        return rate(self.rate) + spread

    def show_used(self):
        if self.server_busy is None or self.resident_mb is None:
            return "-"
        # Files that are mapped count as resident while the kernel keeps them.
        memory = f"{self.resident_mb:,.0f} MB"
        if self.resident_mb > 1.2 * self.anonymous_mb + 20:
            memory += f" ({self.anonymous_mb:,.0f})"
        return f"{self.server_busy * 100:.0f} %, {memory}"


def middle(rounds, figure):
    values = [figures[figure] for figures in rounds if figure in figures]
    return median(values) if values else None


def rate(value):
    """Three digits that count: 961, 12.4 k, 161 k, 2.41 M."""
    for factor, unit in [(1e6, " M"), (1e3, " k")]:
        if value >= factor * 0.9995:
            return f"{value / factor:#.3g}".rstrip(".") + unit
    return f"{value:.0f}"


def grid(members, workloads, show):
    lines = ["| workload | " + " | ".join(name for _, name in members) + " |", "|---" * (len(members) + 1) + "|"]
    for workload in workloads:
        lines.append(f"| {workload.title} | " + " | ".join(show(slug, workload.key) for slug, _ in members) + " |")
    return lines


def latencies(members, workloads, cells):
    """Where the load generator is the same."""
    timed = [member for member in members if any(cells[member[0], workload.key].p99_ms for workload in workloads)]
    shown = [workload for workload in workloads if any(cells[slug, workload.key].p99_ms for slug, _ in timed)]
    if not timed:
        return []

    def show(slug, key):
        cell = cells[slug, key]
        return "-" if cell.p99_ms is None else f"{milliseconds(cell.p50_ms)} / {milliseconds(cell.p99_ms)}"

    return ["Latency in ms, median / p99.", "", *grid(timed, shown, show), ""]


def milliseconds(value):
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def ratios(members, workloads, cells, ours):
    """How many times the rate of each other Corelane has."""
    others = [(slug, name) for slug, name in members if not slug.startswith("corelane")]
    if ours not in dict(members) or not others:
        return []

    def show(slug, key):
        mine, theirs = cells[ours, key].rate, cells[slug, key].rate
        return times(mine / theirs) if mine and theirs else "-"

    name = dict(members)[ours]
    shown = [workload for workload in workloads if any(show(slug, workload.key) != "-" for slug, _ in others)]
    return [f"{name}, as a multiple of", "", *grid(others, shown, show), ""]


def times(value):
    return f"{value:.2f} x" if value < 10 else f"{value:.0f} x"


def aims(cells):
    """What was to be reached, and what was."""
    lines = []
    for aim in AIMS:
        reached = aim.reached(lambda slug, key: cells.get((slug, key)))
        if reached is not None:
            met = "yes" if reached >= aim.bound else "no"
            lines.append(f"| {aim.what} | {aim.show(aim.bound)} | {aim.show(reached)} | {met} |")
    memory = [cell.resident_mb for (slug, _), cell in cells.items() if slug.startswith("corelane") and cell.resident_mb]
    if memory:
        met = "yes" if max(memory) <= MOST_MEMORY_MB else "no"
        lines.append(f"| resident memory of Corelane in all of the above | at most {MOST_MEMORY_MB} MB | {max(memory):.0f} MB | {met} |")
    if not lines:
        return []
    return ["## What was to be reached", "", "| | at least | reached | |", "|---|---|---|---|", *lines, ""]

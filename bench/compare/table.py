"""The results as one page of Markdown: medians, ratios, and under what conditions."""

from statistics import median


def page(options, lines_of_machine, peers, absent, results, workloads, notes):
    """`results` holds a list of figures, one a round, for each (peer's name, workload's key)."""
    out = ["# Comparison", ""]
    out += [f"Server on core {options.server_core}, load on core {options.generator_core}, over loopback; {options.rounds} "
            f"interleaved rounds of {options.seconds} s after {options.warm_up} s of warm-up, medians. Every server starts "
            "anew, with an empty directory, in each round.", ""]
    out += [f"- {line}" for line in lines_of_machine] + [""]
    for durable, title in [(True, "Answered when it is on the disk"), (False, "Answered from memory")]:
        members = [peer for peer in peers if peer.durable == durable]
        if members:
            out += [f"## {title}", ""] + rates(members, results, workloads) + [""]
            out += ratios(members, results, workloads)
    out += ["## Who", "", "| peer | version | settings | most memory |", "|---|---|---|---|"]
    for peer in peers:
        out.append(f"| {peer.name} | {notes['version'].get(peer.name, '')} | {peer.settings} | "
                   f"{notes['memory'].get(peer.name, 0):.0f} MB |")
    out += ["", "## Absent, and not comparable", ""]
    out += [f"- {name}: {why}" for name, why in absent.items()]
    out += ["- A dash: the peer, or its own tool, has no such workload. Kafka's and NATS's rates come from their own tools, "
            "whose latencies do not count from the same moment; so they have none here.",
            "- Kafka batches in its client as it likes where others are given batches of 16.", ""]
    remarks = sorted({f"{name}, {key}: {figures['note']}" for (name, key), rounds in results.items()
                      for figures in rounds if figures.get("note")})
    if remarks:
        out += ["## Remarks", ""] + [f"- {remark}" for remark in remarks] + [""]
    return "\n".join(out)


def middle(results, peer, workload, figure):
    values = [figures[figure] for figures in results.get((peer.name, workload.key), []) if figure in figures]
    return median(values) if values else None


def rates(members, results, workloads):
    """Messages a second, and latencies where they are comparable."""
    lines = ["| workload | " + " | ".join(peer.name for peer in members) + " |", "|---" * (len(members) + 1) + "|"]
    for workload in workloads:
        cells = []
        for peer in members:
            rate = middle(results, peer, workload, "rate")
            if rate is None:
                cells.append("-")
                continue
            cell = f"{rate:,.0f} /s"
            p50, p99 = middle(results, peer, workload, "p50_ms"), middle(results, peer, workload, "p99_ms")
            if p99 is not None:
                cell += f", p50 {p50:.3f}, p99 {p99:.3f} ms"
            cells.append(cell)
        lines.append(f"| {workload.title} | " + " | ".join(cells) + " |")
    return lines


def ratios(members, results, workloads):
    """How many times the rate of each other peer Corelane has."""
    ours = next((peer for peer in members if peer.name.startswith("Corelane")), None)
    others = [peer for peer in members if peer is not ours]
    if ours is None or not others:
        return []
    lines = [f"{ours.name} against", "", "| workload | " + " | ".join(peer.name for peer in others) + " |",
             "|---" * (len(others) + 1) + "|"]
    for workload in workloads:
        mine = middle(results, ours, workload, "rate")
        cells = []
        for peer in others:
            theirs = middle(results, peer, workload, "rate")
            cells.append(f"{mine / theirs:.2f} x" if mine and theirs else "-")
        lines.append(f"| {workload.title} | " + " | ".join(cells) + " |")
    return lines + [""]

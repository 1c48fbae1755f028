"""Measurements as files, one each: a run that was interrupted goes on where it was, and a table can be made anew.

`DIRECTORY/PEER/WORKLOAD.ROUND.json` holds the figures, `DIRECTORY/PEER/peer.json` who that is, `DIRECTORY/run.json` how it
was measured and on what machine.
"""

import json


class Results:
    def __init__(self, directory):
        self.directory = directory

    def has(self, slug, workload, number):
        return self._path(slug, workload, number).exists()

    def add(self, slug, workload, number, figures):
        _write(self._path(slug, workload, number), figures)

    def describe(self, slug, about):
        _write(self.directory / slug / "peer.json", about)

    def describe_run(self, about):
        _write(self.directory / "run.json", about)

    def has_run(self):
        return (self.directory / "run.json").exists()

    def run(self):
        return json.loads((self.directory / "run.json").read_text())

    def peers(self):
        """Who was measured: a dictionary for each slug."""
        found = sorted(self.directory.glob("*/peer.json"))
        return {path.parent.name: json.loads(path.read_text()) for path in found}

    def rounds(self, slug, workload):
        """The figures of each round."""
        return [json.loads(path.read_text()) for path in sorted((self.directory / slug).glob(f"{workload}.*.json"))]

    def _path(self, slug, workload, number):
        return self.directory / slug / f"{workload}.{number}.json"


def _write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1) + "\n")
    part.rename(path)

"""Folders of results that a test writes and compares, and what the comparison prints."""
import csv
import re

from tests.rows import error_of, write_rows
from utils import compare_results


class Comparison:
    """Folders a, b, c... in `folder`, and what comparing them gives."""

    def __init__(self, folder, monkeypatch, capsys):
        self.folder, self.monkeypatch, self.capsys = folder, monkeypatch, capsys

    def write(self, name, train=({},), infer=({},)):
        for stage, changes in (("train", train), ("infer", infer)):
            if changes:
                write_rows(self.folder / name, stage, *changes)

    def error(self, *arguments):
        folders = [str(self.folder / argument) if argument.islower() and not argument.startswith("-") else argument
                   for argument in arguments]
        return error_of(compare_results.main, self.monkeypatch, *folders, "--output", str(self.folder / "out"))

    def run(self, *arguments):
        """Compares; returns the rows of the CSV. `text` is then what was printed."""
        assert self.error(*arguments) is None
        self.text = self.capsys.readouterr().out
        with open(str(self.folder / "out" / "comparison.csv"), newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def tables(self):
        """The tables that were printed, by the heading above: lists of rows, each a list of cells."""
        tables, heading = {}, ""
        for line in self.text.splitlines():
            if line.startswith("#"):
                heading = line.lstrip("# ")
            elif line.startswith("|"):
                tables.setdefault(heading, []).append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        for header, _, *rows in tables.values():
            assert all(len(row) == len(header) for row in rows)
        return {heading: [dict(zip(table[0], row)) for row in table[2:]] for heading, table in tables.items()}

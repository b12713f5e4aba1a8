"""A report read back, and the curves of a run, for the tests of the report."""
import base64
import html.parser
import os

from utils import report

VOID = ("meta", "img")


class Page(html.parser.HTMLParser):
    """A page read back: its tables by title, headings, images, attributes and text. No tag may stay open."""

    def __init__(self, folder):
        super().__init__()
        self.open, self.tables, self.headings, self.attributes, self.tags, self.text = [], {}, [], [], set(), ""
        with open(os.path.join(str(folder), report.REPORT), encoding="utf-8") as file:
            self.source = file.read()
        self.feed(self.source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("h2", "h3"):
            self.headings.append("")
        if tag == "table":
            self.table = self.tables.setdefault(self.headings[-1], [])
        if tag == "tr":
            self.table.append([])
        if tag in ("th", "td"):
            self.table[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("th", "td"):
            self.table[-1][-1] += data
        elif self.open and self.open[-1] in ("h2", "h3"):
            self.headings[-1] += data
        self.text += data

    def rows(self, title):
        """The rows of a table, dictionaries by header."""
        header, *rows = self.tables[title]
        assert len(set(header)) == len(header) and all(len(row) == len(header) for row in rows)
        return [dict(zip(header, row)) for row in rows]

    def images(self):
        """The contents of the images."""
        return [base64.b64decode(value.split(",", 1)[1]) for tag, name, value in self.attributes
                if (tag, name) == ("img", "src")]


def curve(gaucs, **changes):
    """Rows of a run's evaluations, every 100 steps and 1 second."""
    return [dict(changes, step=str(100 * index), seconds=str(0.5 + index), gauc=str(gauc),
                 train_loss="0.6" if index else "") for index, gauc in enumerate(gaucs)]

"""Tables of Markdown, as commands print them and write them."""
import html
import re

from utils.reports.names import is_sample, one_line


def dataset_cell(dataset):
    """A data set's name in a table, with the mark of a sample."""
    return dataset + (" (generated)" if is_sample(dataset) else "")


def table(headers, rows, figures=0):
    """A Markdown table whose columns are aligned, the last `figures` columns to the right."""
    columns = []
    for index, texts in enumerate(zip(headers, *rows)):
        cells = [re.sub(r"([\\|*`\[\]])", r"\\\1", html.escape(one_line(text), quote=False)) for text in texts]
        width = max(3, *map(len, cells))
        align, end = (str.ljust, "-") if index < len(headers) - figures else (str.rjust, ":")
        header, *cells = [" %s " % align(cell, width) for cell in cells]
        columns.append([header, "-" * (width + 1) + end] + cells)
    return "\n".join("|%s|" % "|".join(line) for line in zip(*columns))

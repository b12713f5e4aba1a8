"""Results as people read them: pages, tables, plots, comparisons."""

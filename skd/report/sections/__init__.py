"""The report's parts as Markdown and CSV, each from values that were read and judged elsewhere."""

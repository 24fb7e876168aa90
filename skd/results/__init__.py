"""What stages write and the report reads: one type per file, one writer and one reader.

Refuses to know torch, how a number was computed, and how it is shown.
"""

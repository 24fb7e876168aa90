"""The report: files of a finished run in, words, tables and figures out.

Refuses to know torch, models and how anything was trained.
"""

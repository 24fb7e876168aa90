"""Tests and checks on a finished run: who is better than whom, and what went wrong.

Refuses to know files and Markdown.
"""

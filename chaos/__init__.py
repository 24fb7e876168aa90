"""Faults on purpose: a tiny experiment is struck at a random moment, and one repeated command must
finish it with the outputs of an experiment that was left alone.

`make chaos` runs some; docs/chaos.md holds the record. It uses the project's commands from outside
and refuses to know how they keep their promise. No part of the product.
"""

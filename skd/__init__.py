"""Speculative knowledge distillation: sampling, losses, the training loop, metrics and the report.

Knows neither DVC nor Prefect, and no stage of the pipeline.
"""

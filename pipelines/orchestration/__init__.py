"""DVC's graph under Prefect: plan, run, watch, cancel. Refuses to know what a stage does."""

"""What an experiment takes before anything of it runs: memory, disk, tokens and hours.

Reads parameters, models' configurations and lengths of rows, and never a weight. Refuses to know
DVC and Prefect, and to change anything.
"""

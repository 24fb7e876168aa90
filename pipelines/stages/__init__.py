"""One thin module per stage of `dvc.yaml`: it reads parameters, calls `skd` and writes files."""

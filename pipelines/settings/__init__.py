"""The sections of `params.yaml` that set the pipeline and not a room of `skd`."""

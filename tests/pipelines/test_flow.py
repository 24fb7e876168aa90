"""The flow's states, order and artifacts, on real DVC projects under one Prefect server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.flow_runs import FlowRun

from pipelines import artifacts, flow, graph, repro, runner
from tests.pipelines.conftest import Stages, chain, processes_in, ran, wait_for

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    pytest.mark.filterwarnings("ignore:_NoneStep.value will soon:DeprecationWarning"),  # DVC
]

Project = Callable[[Stages], Path]


def experiment(**parameters: Any) -> State[Any]:
    return flow.experiment(**parameters, return_state=True)

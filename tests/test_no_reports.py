"""Nothing is reported to anybody: the libraries' telemetry is off before they are imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

#: Of OpenVINO's converter and of NNCF; under pytest NNCF silences itself, so they are looked at in another process.
LOOK = """
import workbench.backends.openvino
import sys, nncf.telemetry.wrapper, openvino.tools.ovc.telemetry_utils as converter
print(isinstance(nncf.telemetry.wrapper.telemetry, nncf.telemetry.wrapper.NNCFTelemetry), converter.tm.__name__)
print([name for name in sys.modules if name.startswith("openvino_telemetry.")])
"""


def test_neither_openvino_nor_nncf_can_send_anything():
    silent = ("CI", "NNCF_CI", "NNCF_DEV", "TF_BUILD", "JENKINS_URL")
    env = {k: v for k, v in os.environ.items() if k not in silent}
    env["PYTHONPATH"] = str(Path(__file__).parent.parent)
    line = [sys.executable, "-c", LOOK]
    done = subprocess.run(line, capture_output=True, text=True, check=True, env=env, timeout=200)
    names, sending = done.stdout.splitlines()[-2:]
    assert names == "False openvino.tools.ovc.telemetry_stub"
    assert sending == "[]"

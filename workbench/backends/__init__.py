"""Backends: runtimes that execute a model. The contract is `base.py`; every other file is one runtime."""

import sys

# OpenVINO and NNCF report to a server what is converted, from a copy of the whole process for each event, unless the
# user has forbidden it. Nobody asked the user; without the package that sends, both of them stay silent.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

"""The machine that a number holds for: processor, instruction sets, cores, memory, GPU, versions, load.

Read from the operating system alone (`/proc`, `/sys`, `sysctl`, `nvidia-smi`) and from package metadata, so that it
imports no runtime. `fingerprint` names the hardware: measurements with different fingerprints do not share a front.
Left out: clock frequency and turbo (they move by the second; paired timing is the answer to that), NUMA.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import psutil

from workbench.errors import StoreError
from workbench.measure.cgroup import cpu_limit, memory_limit

#: Instruction sets that decide the speed of low precision, by the names that `/proc/cpuinfo` and `sysctl` use.
_FLAGS = {
    **{name: name for name in ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx_vnni_int8", "avx512_bf16")},
    **{name: name for name in ("avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "i8mm", "bf16", "sve", "sve2")},
    "asimddp": "dotprod",
    "asimdhp": "fp16",
    "hw.optional.arm.FEAT_DotProd": "dotprod",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_FP16": "fp16",
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512f": "avx512f",
}

#: Packages whose version can change a measurement.
_PACKAGES = (
    *("torch", "torchao", "transformers", "tokenizers", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "nncf"),
    *("numpy", "datasets", "optuna"),
)


@dataclass(frozen=True)
class Machine:
    """What decides speed here, and what may disturb it.

    `cpu_id` is family.model.stepping (x86) or implementer.part (ARM), because hypervisors shorten names. `flags` are
    the instruction sets of interest, None where they could not be read. `cores_usable` counts the logical cores this
    process may run on, `cpu_limit` the processors a container's quota allows (None without one). `ram_mb` is what
    this process may use, in MB (10^6 bytes). `load` is the load average of the last minute, None where unknown.
    """

    cpu: str
    cpu_id: str
    architecture: str
    cores_physical: int
    cores_logical: int
    cores_usable: int
    cpu_limit: float | None
    flags: tuple[str, ...] | None
    ram_mb: int
    gpus: tuple[str, ...]
    system: str
    python: str
    versions: dict[str, str]
    load: float | None

    @classmethod
    def here(cls, root: Path = Path("/")) -> Self:
        """This machine, now. `root` is where `proc` and `sys` lie."""
        name, identity, flags = _processor(root)
        logical = psutil.cpu_count() or 1
        total, limit = psutil.virtual_memory().total, memory_limit(root)
        return cls(
            cpu=name,
            cpu_id=identity,
            architecture=platform.machine(),
            cores_physical=psutil.cpu_count(logical=False) or logical,
            cores_logical=logical,
            cores_usable=usable_cores(),
            cpu_limit=cpu_limit(root),
            flags=flags,
            ram_mb=round(min(total, limit or total) / 1e6),
            gpus=_gpus(),
            system=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            versions=dict(versions()),
            load=load_average(),
        )

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits of the hardware that decides speed: processor, cores, quota, flags, GPUs.

        Neither load nor versions: an upgrade leaves the machine the same, and `differences` tells of it.
        """
        hardware = [self.cpu, self.cpu_id, self.architecture, self.cores_usable, self.cpu_limit, self.flags]
        text = json.dumps([*hardware, self.gpus])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def differences(self, other: Machine) -> list[str]:
        """What differs from `other` and may change a measurement, a plain sentence each; the load does not count."""
        mine, theirs = self.to_json(), other.to_json()
        names = [item.name for item in fields(self) if item.name not in ("versions", "load")]
        found = [f"{name}: {mine[name]} here, {theirs[name]} there" for name in names if mine[name] != theirs[name]]
        for name in sorted({*self.versions, *other.versions}):
            here, there = self.versions.get(name, "absent"), other.versions.get(name, "absent")
            if here != there:
                found.append(f"{name}: {here} here, {there} there")
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        plain = asdict(self)
        return {**plain, "flags": None if self.flags is None else list(self.flags), "gpus": list(self.gpus)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The machine that `to_json` wrote; raises `StoreError` for other fields."""
        if set(data) != {item.name for item in fields(cls)}:
            raise StoreError("A stored description of a machine is damaged.", do="measure again on that machine")
        flags = None if data["flags"] is None else tuple(data["flags"])
        return cls(**{**data, "flags": flags, "gpus": tuple(data["gpus"])})


def usable_cores() -> int:
    """Logical cores that this process may run on: its affinity, or all of them where there is none."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return psutil.cpu_count() or 1


def load_average() -> float | None:
    """Load average of the last minute, None on systems without one."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


@cache
def versions() -> dict[str, str]:
    """Versions of the installed packages that can change a measurement, read without importing them."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def parse_cpuinfo(text: str) -> tuple[str, str, tuple[str, ...]]:
    """(name, identity, flags) from the text of Linux's `/proc/cpuinfo`, x86 or ARM."""
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    facts = {key.strip(): value.strip() for key, _, value in pairs}
    numbers = [facts[key] for key in ("cpu family", "model", "stepping") if key in facts]
    part = [facts[key] for key in ("CPU implementer", "CPU part") if key in facts]
    name = facts.get("model name") or (f"ARM {' '.join(part)}" if part else "unknown processor")
    raw = facts.get("flags") or facts.get("Features") or ""
    return name, ".".join(numbers or part), _known(raw.split())


def parse_sysctl(text: str) -> tuple[str, str, tuple[str, ...]]:
    """(name, identity, flags) from macOS' `sysctl -a`-like lines `key: value`."""
    facts = dict(re.findall(r"^([\w.]+): (.*)$", text, re.MULTILINE))
    identity = ".".join(facts[key] for key in ("hw.cpufamily", "hw.cpusubfamily") if key in facts)
    flags = _known(key for key, value in facts.items() if value == "1")
    return facts.get("machdep.cpu.brand_string", "unknown processor"), identity, flags


def _known(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({_FLAGS[name] for name in names if name in _FLAGS}))


def _processor(root: Path) -> tuple[str, str, tuple[str, ...] | None]:
    info = root / "proc" / "cpuinfo"
    if info.exists():
        return parse_cpuinfo(info.read_text(errors="replace"))
    if platform.system() == "Darwin":
        return parse_sysctl(_output("sysctl", "machdep.cpu", "hw.optional", "hw.cpufamily", "hw.cpusubfamily"))
    return platform.processor() or "unknown processor", "", None


@cache
def _gpus() -> tuple[str, ...]:
    """Names of the NVIDIA GPUs as `nvidia-smi` tells them."""
    lines = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def _output(program: str, *arguments: str) -> str:
    """What `program` prints, '' where it is missing, fails or takes over five seconds."""
    path = shutil.which(program)
    if path is None:
        return ""
    try:
        done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    # sysctl exits 1 when one of several names is unknown, yet prints the others.
    return done.stdout if done.returncode == 0 or program == "sysctl" else ""

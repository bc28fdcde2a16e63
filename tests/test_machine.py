"""The machine's description, from real and made-up systems, and the advice that follows from it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.errors import StoreError
from workbench.measure import machine as module
from workbench.measure.advice import advice, instructions, warnings
from workbench.measure.cgroup import cpu_limit, memory_left, memory_limit
from workbench.measure.machine import Machine, load_average, parse_cpuinfo, parse_sysctl, usable_cores

SAPPHIRE_RAPIDS = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
stepping\t: 8
flags\t\t: fpu sse2 fma avx2 avx512f avx512_bf16 avx512_vnni amx_bf16 amx_tile amx_int8 avx512_fp16

processor\t: 1
model name\t: something else
"""

GRAVITON3 = """\
processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd fphp asimdhp asimddp sve i8mm bf16
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""

APPLE = """\
machdep.cpu.brand_string: Apple M2
hw.optional.arm.FEAT_BF16: 1
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_SME: 0
hw.cpufamily: 3660830781
"""


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.fixture(scope="module")
def here() -> Machine:
    return Machine.here()


def with_flags(here: Machine, *flags: str) -> Machine:
    return dataclasses.replace(here, flags=flags, load=0.0, gpus=(), cpu_limit=None, cores_usable=2, cores_physical=2)


def test_here(here: Machine) -> None:
    assert here.cpu
    assert 1 <= here.cores_usable <= here.cores_logical
    assert here.cores_physical <= here.cores_logical
    assert here.ram_mb > 100
    assert here.versions["numpy"]
    assert here.python == ".".join(map(str, sys.version_info[:3]))


def test_json_round_trip(here: Machine) -> None:
    data = json.loads(json.dumps(here.to_json(), allow_nan=False))
    assert Machine.from_json(data) == here
    unread = dataclasses.replace(here, flags=None)
    assert Machine.from_json(unread.to_json()) == unread
    del data["cpu"]
    with pytest.raises(StoreError, match="damaged"):
        Machine.from_json(data)


def test_fingerprint_is_of_what_decides_speed(here: Machine) -> None:
    print_ = here.fingerprint()
    assert len(print_) == 12
    assert Machine.from_json(json.loads(json.dumps(here.to_json()))).fingerprint() == print_
    for same in ({"load": 99.0}, {"versions": {}}, {"python": "4"}, {"ram_mb": 1}):
        assert dataclasses.replace(here, **same).fingerprint() == print_
    others = (
        {"cpu": "x"},
        {"cpu_id": "x"},
        {"cores_usable": 77},
        {"cpu_limit": 0.5},
        {"flags": ("x",)},
        {"gpus": ("x",)},
    )
    found = {dataclasses.replace(here, **other).fingerprint() for other in others}
    assert len(found | {print_}) == len(others) + 1


def test_differences(here: Machine) -> None:
    assert here.differences(dataclasses.replace(here, load=99.0)) == []
    newer = {**here.versions, "numpy": "9.9", "made-up": "1"}
    told = here.differences(dataclasses.replace(here, versions=newer, cores_usable=77))
    assert told == [
        f"cores_usable: {here.cores_usable} here, 77 there",
        "made-up: absent here, 1 there",
        f"numpy: {here.versions['numpy']} here, 9.9 there",
    ]


def test_intel() -> None:
    name, identity, flags = parse_cpuinfo(SAPPHIRE_RAPIDS)
    assert name.startswith("Intel(R) Xeon(R) Platinum 8481C")
    assert identity == "6.143.8"
    assert {"avx2", "avx512_vnni", "amx_int8", "amx_bf16", "avx512_bf16"} <= set(flags)
    assert "sse2" not in flags


def test_arm() -> None:
    assert parse_cpuinfo(GRAVITON3) == ("ARM 0x41 0xd40", "0x41.0xd40", ("bf16", "dotprod", "fp16", "i8mm", "sve"))
    assert parse_cpuinfo("") == ("unknown processor", "", ())


def test_apple() -> None:
    assert parse_sysctl(APPLE) == ("Apple M2", "3660830781", ("bf16", "dotprod", "i8mm"))


def test_a_system_without_cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.platform, "system", lambda: "Windows")
    found = Machine.here(tmp_path)
    assert found.flags is None
    assert all("could not be read" in line for line in advice(dataclasses.replace(found, load=0.0))[:2])


@pytest.mark.parametrize(
    ("flags", "int8", "bf16"),
    [
        (
            ("amx_int8", "amx_bf16", "avx512_vnni", "avx512_bf16"),
            "support (AMX: many times",
            "support (AMX: many times",
        ),
        (("avx512_vnni", "avx512_bf16"), "support (AVX-512 VNNI: up to 4x", "support (AVX-512 BF16: up to 2x"),
        (("avx2", "avx_vnni"), "support (AVX-VNNI: up to 4x", "emulated"),
        (("avx2", "avx512f"), "often no faster than FP32", "emulated"),
        (("i8mm", "bf16", "dotprod"), "support (Arm I8MM: up to 8x", "support (Arm BF16: up to 4x"),
        (("dotprod",), "support (Arm dot product: up to 4x", "emulated"),
    ],
)
def test_advice_on_precision(here: Machine, flags: tuple[str, ...], int8: str, bf16: str) -> None:
    told = advice(with_flags(here, *flags))
    assert len(told) == 2
    assert told[0].startswith("INT8 has ")
    assert int8 in told[0]
    assert told[1].startswith("BF16 has ")
    assert bf16 in told[1]


def test_advice_on_threads_load_and_gpu(here: Machine) -> None:
    quiet = with_flags(here, "avx2")

    def told(**changes: object) -> list[str]:
        return advice(dataclasses.replace(quiet, **changes))[2:]

    assert told(load=None) == []
    assert "may use 1.5 of the 2 cores it sees: with more than 1 thread it" in told(cpu_limit=1.5)[0]
    assert told(cpu_limit=4.0) == []
    assert "16 logical cores are 8 physical ones: 8 threads" in told(cores_usable=16, cores_physical=8)[0]
    assert "load average is 3.2" in told(load=3.2)[0]
    assert "NVIDIA L4" in told(gpus=("NVIDIA L4",))[0]


@pytest.mark.skipif(sys.platform == "win32", reason="the double is a shell script")
def test_gpus_as_nvidia_smi_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200'\necho 'NVIDIA L4 '\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    module._gpus.cache_clear()
    try:
        assert module._gpus() == ("NVIDIA H200", "NVIDIA L4")
        program.write_text("#!/bin/sh\necho 'no driver'\nexit 9\n")
        module._gpus.cache_clear()
        assert module._gpus() == ()
    finally:
        module._gpus.cache_clear()


def test_usable_cores_and_load() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    load = load_average()
    assert load is None or load >= 0


def test_limits_of_cgroup_v2(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/app\n",
            "sys/fs/cgroup/pod/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/pod/app/cpu.max": "max 100000\n",
            "sys/fs/cgroup/pod/memory.max": "max\n",
            "sys/fs/cgroup/pod/app/memory.max": "2000000000\n",
            "sys/fs/cgroup/pod/app/memory.current": "1500000000\n",
            "sys/fs/cgroup/pod/app/memory.stat": "active_file 7\ninactive_file 250000000\n",
        },
    )
    assert cpu_limit(root) == 1.5
    assert memory_limit(root) == 2_000_000_000
    assert memory_left(root) == 750_000_000
    assert Machine.here(root).cpu_limit == 1.5
    assert Machine.here(root).ram_mb <= 2000


def test_limits_of_cgroup_v1_whose_path_is_the_hosts(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/docker/abc\n2:memory:/docker/abc\n1:name=systemd:/\n0::/\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "123\n",
        },
    )
    assert cpu_limit(root) == 0.5
    assert memory_limit(root) is None
    assert memory_left(root) is None
    tree(root, {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n"})
    assert cpu_limit(root) is None


def test_no_cgroups(tmp_path: Path) -> None:
    assert (cpu_limit(tmp_path), memory_limit(tmp_path), memory_left(tmp_path)) == (None, None, None)


def test_the_measuring_floor_imports_no_runtime() -> None:
    names = ("accuracy", "advice", "estimate", "footprint", "layers", "machine", "measurement", "outcomes", "timing")
    heavy = ("torch", "transformers", "onnxruntime", "openvino", "nncf", "optuna", "sklearn", "scipy")
    lines = ["import sys", *(f"import workbench.measure.{name}" for name in names)]
    lines += ["workbench.measure.machine.Machine.here()", f"print([n for n in {heavy} if n in sys.modules])"]
    code = "\n".join(lines)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_warnings_before_a_run_in_low_precision(here: Machine) -> None:
    assert warnings(with_flags(here, "avx512_vnni", "avx512_bf16")) == []
    assert [line.split()[0] for line in warnings(with_flags(here, "avx2"))] == ["INT8", "BF16"]
    assert [line.split()[0] for line in warnings(with_flags(here, "avx_vnni"))] == ["BF16"]
    # What could not be read is no reason to warn of.
    assert warnings(dataclasses.replace(here, flags=None)) == []


def test_instructions_by_architecture(here: Machine) -> None:
    x86 = dataclasses.replace(with_flags(here, "amx_int8", "avx_vnni"), architecture="x86_64")
    assert instructions(x86) == {
        "VNNI (INT8)": True,
        "AMX (INT8)": True,
        "AMX (BF16)": False,
        "AVX-512 BF16": False,
        "AVX-512": False,
    }
    arm = dataclasses.replace(with_flags(here, "i8mm", "sve2"), architecture="aarch64")
    assert instructions(arm) == {"Dot product (INT8)": False, "I8MM (INT8)": True, "BF16": False, "SVE": True}
    assert set(instructions(dataclasses.replace(arm, flags=None)).values()) == {None}

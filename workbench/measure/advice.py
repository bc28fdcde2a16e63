"""What INT8 and BF16 can be expected to give on a machine, in plain sentences, before an hour is spent on it.

The users of quantization tools complain most that INT8 was not faster and nobody had said so: whether it can be is
decided by the instruction set. Multiples are those of multiply-accumulates per instruction against FP32 at the same
vector width (Intel's and Arm's instruction references): a ceiling, which a whole model stays below.
"""

from __future__ import annotations

from workbench.measure.machine import Machine


def advice(machine: Machine) -> list[str]:
    """Sentences on INT8, BF16, threads and disturbance, the most important first."""
    found = [_int8(machine), _bf16(machine), *_threads(machine), *_disturbance(machine)]
    if machine.gpus:
        found.append(f"GPU {', '.join(machine.gpus)}: the PyTorch backends can use it where torch has CUDA.")
    return found


def warnings(machine: Machine) -> list[str]:
    """What to know before a run because this machine cannot do it in hardware; empty where it can do both."""
    found = []
    if machine.flags is not None and not _support(machine, _INT8):
        found.append(_int8(machine))
    if machine.flags is not None and not _support(machine, _BF16):
        found.append(_bf16(machine))
    return found


def instructions(machine: Machine) -> dict[str, bool | None]:
    """Whether the processor has the instructions that low precision lives by; None where that could not be read."""
    names = _ARM if machine.architecture.lower() in ("aarch64", "arm64") else _X86
    flags = machine.flags
    return {name: None if flags is None else any(flag in flags for flag in known) for name, known in names.items()}


_X86 = {
    "VNNI (INT8)": ("avx512_vnni", "avx_vnni"),
    "AMX (INT8)": ("amx_int8",),
    "AMX (BF16)": ("amx_bf16",),
    "AVX-512 BF16": ("avx512_bf16",),
    "AVX-512": ("avx512f",),
}
_ARM = {"Dot product (INT8)": ("dotprod",), "I8MM (INT8)": ("i8mm",), "BF16": ("bf16",), "SVE": ("sve", "sve2")}

#: (flag, its name, MACs per instruction against FP32), the best first.
_INT8 = (
    ("amx_int8", "AMX", 0),
    ("i8mm", "Arm I8MM", 8),
    ("avx512_vnni", "AVX-512 VNNI", 4),
    ("avx_vnni", "AVX-VNNI", 4),
    ("dotprod", "Arm dot product", 4),
)
#: How much faster than FP32 whole classifiers of BERT's kind became with static INT8 on OpenVINO or PyTorch's
#: compiler (MiniLM-L6 and DistilBERT, batch 1, 128 tokens), by name of the instructions. Arm was not measured.
_SEEN = {"AMX": "2-5x", "AVX-512 VNNI": "2-4x", "AVX-VNNI": "2-4x"}
_BF16 = (("amx_bf16", "AMX", 0), ("bf16", "Arm BF16", 4), ("avx512_bf16", "AVX-512 BF16", 2))


def _support(machine: Machine, table: tuple[tuple[str, str, int], ...]) -> str:
    """The best support in `table` in words, '' for none. AMX works on whole tiles: no multiple is given for it."""
    for flag, name, times in table:
        if machine.flags and flag in machine.flags:
            return f"{name}: {f'up to {times}x' if times else 'many times'} the multiplications of FP32"
    return ""


def _int8(machine: Machine) -> str:
    if machine.flags is None:
        return "INT8: the processor's instruction sets could not be read here; measure before you believe in a gain."
    if support := _support(machine, _INT8):
        gain = _SEEN.get(support.partition(":")[0], "a gain")
        return f"INT8 has hardware support ({support}): expect {gain}, and check that it beats BF16."
    return (
        "INT8 has no hardware support here (no VNNI, AMX or dot product): it is often no faster than FP32, and its "
        "sums can saturate unless the range is reduced. It still makes the weights four times smaller."
    )


def _bf16(machine: Machine) -> str:
    if machine.flags is None:
        return "BF16: the processor's instruction sets could not be read here; measure it."
    if support := _support(machine, _BF16):
        return f"BF16 has hardware support ({support}): expect a gain at nearly no drop; INT8 must beat it."
    return "BF16 has no hardware support here: it is emulated and usually slower than FP32. It halves the weights."


def _threads(machine: Machine) -> list[str]:
    found = []
    cores = min(machine.cores_physical, machine.cores_usable)
    if machine.cpu_limit is not None and machine.cpu_limit < machine.cores_usable:
        threads = max(1, int(machine.cpu_limit))
        found.append(
            f"This container may use {machine.cpu_limit:g} of the {machine.cores_usable} cores it sees: with more than "
            f"{threads} thread{'s' * (threads != 1)} it is stopped in the middle of a call."
        )
    elif machine.cores_usable > cores:
        found.append(
            f"{machine.cores_usable} logical cores are {cores} physical ones: {cores} threads are usually fastest."
        )
    return found


def _disturbance(machine: Machine) -> list[str]:
    # Half a core busy is already seen in p99.
    if machine.load is None or machine.load < 0.5:
        return []
    return [
        f"The load average is {machine.load:g} on {machine.cores_usable} usable cores: something else is running, or "
        "has just run. Ratios to the baseline hold, milliseconds do not."
    ]

"""What is read from each system's own words about its processor."""

from __future__ import annotations

from llamalite.libs.files.processor import read_cpuinfo, read_sysctl, this_processor

X86 = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8481C
flags\t\t: fpu sse4_2 avx f16c avx2 fma bmi2 avx512f avx512_vnni amx_bf16 amx_tile amx_int8 avx_vnni

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
ARM = """\
processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp asimddp sve i8mm bf16
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd40
"""
M2 = """\
machdep.cpu.cores_per_package: 8
machdep.cpu.brand_string: Apple M2
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_SME: 0
hw.optional.AdvSIMD: 1
hw.optional.floatingpoint: 1
"""
INTEL_MAC = """\
machdep.cpu.features: FPU SSE4.2 AVX1.0 F16C FMA
machdep.cpu.leaf7_features: RDWRFSGS AVX2 BMI2
machdep.cpu.brand_string: Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz
"""


def test_linux_on_x86_tells_of_the_first_processor_in_a_fixed_order() -> None:
    processor = read_cpuinfo(X86)
    assert processor.model == "Intel(R) Xeon(R) Platinum 8481C"
    assert " ".join(processor.features) == (
        "sse4_2 avx avx2 fma f16c bmi2 avx_vnni avx512f avx512_vnni amx_tile amx_int8 amx_bf16"
    )


def test_linux_on_arm_has_other_names() -> None:
    processor = read_cpuinfo(ARM)
    assert processor.model == "ARM part 0xd40"
    assert processor.features == ("neon", "fp16", "dotprod", "i8mm", "bf16", "sve")


def test_macs_of_both_kinds() -> None:
    assert read_sysctl(M2).model == "Apple M2"
    assert read_sysctl(M2).features == ("neon", "dotprod", "i8mm")
    assert read_sysctl(INTEL_MAC).features == ("sse4_2", "avx", "avx2", "fma", "f16c", "bmi2")


def test_nothing_readable_is_nothing_claimed() -> None:
    assert read_cpuinfo("").features == ()
    assert read_cpuinfo("CPU implementer: x\nCPU part: y\nHardware: BCM2835").model == "BCM2835"
    assert read_sysctl("").features == ()


def test_this_machine_has_a_processor() -> None:
    assert this_processor().model

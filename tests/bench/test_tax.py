"""What programmability costs, counted exactly where valgrind exists, else measured."""

from __future__ import annotations

from chamelio.bench import tax


def test_joint_code_is_level_with_fixed_code_and_separate_code_is_not() -> None:
    """Every driver checks that each request is answered. Instructions decide where valgrind counts them."""
    result = tax.measure(protocols=["udp"], runs=5, batches=300)
    ratios = result["ratios"]["udp"]
    which = "instructions" if "instructions" in ratios["joint_to_fixed"] else "p10"
    assert ratios["joint_to_fixed"][which] <= result["limit"]
    assert ratios["separate_to_fixed"][which] > 1.1
    assert set(result["udp"]) == set(tax.VARIANTS)

"""What is said of int8 sums: over every instruction set that can be named, and no alarm where none is due."""

from graphwright.passes.quantize.report.saturation import Saturation
from graphwright.tools.build.portability import Portability


def test_a_product_that_saturates_is_wrong_on_x86_without_vnni_alone():
    found = Portability((Saturation("a", 0.2, 0.01, 0.3), Saturation("b", 0, 0, 0)))
    assert found.verdicts == {
        "x86-64-avx2": "saturates",
        "x86-64-avx512": "saturates",
        "x86-64-vnni": "right",
        "x86-64-bf16": "right",
        "x86-64-amx": "right",
        "aarch64-neon": "right",
        "aarch64-dotprod": "right",
    }
    told = " ".join(found.sentences())
    assert "saturates on x86-64-avx2, x86-64-avx512 (1 of 2 products overflow 16 bits; worst is a, " in told
    assert "1.00% of whose sums of two do, an error of 30.00%" in told
    assert "--target" in told


def test_a_user_is_told_once_and_in_words_what_it_means_here_and_elsewhere():
    wrong = Portability((Saturation("a", 0.2, 0.01, 16.5592), Saturation("b", 0, 0, 0)))
    assert wrong.told("x86-64-vnni") == (
        "Its int8 sums can't overflow on x86-64-vnni, which it was built for; on x86-64-avx2, x86-64-avx512, "
        "which lack VNNI, they do and results would be wrong: build for such a processor with --target "
        "x86-64-avx2."
    )
    assert "Its int8 sums overflow on x86-64-avx2, which it was built for" in wrong.told("x86-64-avx2")
    never = Portability((Saturation("a", 0, 0, 0),))
    assert never.told("x86-64-vnni") == "Its int8 sums can't overflow on x86-64-vnni, which it was built for."
    seldom = Portability((Saturation("a", 0.2, 0, 0),)).told("aarch64-neon")
    assert "they could, though none did on the texts tried" in seldom


def test_what_did_not_overflow_on_the_data_is_told_from_what_never_can():
    seldom = Portability((Saturation("a", 0.2, 0, 0),))
    assert seldom.verdicts["x86-64-avx2"] == "right on this data"
    assert "1 of 1 products could overflow 16 bits, and none did" in seldom.sentences()[0]
    never = Portability((Saturation("a", 0, 0, 0),))
    assert set(never.verdicts.values()) == {"right"}
    assert len(never.sentences()) == 1


def test_a_graph_without_int8_has_nothing_to_saturate():
    assert Portability(()).sentences() == [
        "No int8 product in it: nothing can saturate, on any instruction set."
    ]

"""Words from outside mean nothing but themselves, wherever they are shown."""

from largede.evaluation.report.shown import fitted, html, label_width, markdown, visible

HOSTILE = (
    "<script>alert(1)</script>\"'&`|*_[x](javascript:1)\u202egnp.exe\x07\x1b[31m\r\nsecond | line\ud800 \u2066<b>\u0000"
)


def test_what_is_not_seen_is_replaced() -> None:
    assert visible("a\u202eb\x07c\ud800d\u0000e\u2069f\ufeffg") == "a\ufffdb\ufffdc\ufffdd\ufffde\ufffdf\ufffdg"
    assert visible("שלום, 日本語 é\tnew\r\nline 👩\u200d🔬") == "שלום, 日本語 é\tnew\nline 👩\u200d🔬"
    visible(HOSTILE).encode()


def test_html_is_escaped() -> None:
    assert html("<a b='c'>&\"") == "&lt;a b=&#x27;c&#x27;&gt;&amp;&quot;"
    assert not set("<>\"'") & set(html(HOSTILE))


def test_markdown_stays_in_its_cell() -> None:
    shown = markdown(HOSTILE)
    assert "\n" not in shown and "<" not in shown
    assert all(shown[at - 1] == "\\" for at, letter in enumerate(shown) if letter in "|`*_[]()#")
    assert markdown("plain words 12.5") == "plain words 12.5"


def test_labels_fit_their_room() -> None:
    for text in ("W" * 90, "日本語" * 30, "short", "", HOSTILE):
        cut = fitted(text, 120)
        assert label_width(cut) <= 120
        assert cut == text or cut.endswith("…")

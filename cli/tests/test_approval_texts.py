"""The text of a call for who approves it: in whole, read back, and never like a row of ours."""

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flotilla_cli.approval_texts import INDENT, MARK, approval_text, arguments_of, question, row
from flotilla_cli.task_texts import paragraphs, plain, task_page

TASK: dict[str, Any] = {"id": "t1", "status": "Suspended", "tenant": "red"}
APPROVAL: dict[str, Any] = {
    "call": "turn/1/tool/pay#approval",
    "target": "pay",
    "destination": "POST https://bank.example/pay",
    "arguments": {"euro": 500, "to": "ann"},
    "untilTime": "2026-01-02T00:00:00Z",
}

# What draws on a terminal, hides, turns round, looks like our rows, or only fills them.
WICKED = st.sampled_from(
    [
        *(
            "\x1b[2K\x1b[1A",
            "\x1b]8;;http://evil.example\x07",
            "\x9b2J",
            "\r",
            "\n",
            "\r\n",
            "\x00",
            "\x7f",
            "\t",
        ),
        *("\u202e", "\u2066", "\u2069", "\u200b", "\u200d", "\ufeff", "\u2028", "\u2029", "\u00a0", "\u3000"),
        *("\u3164", "\u115f", "\u2800", "\ufe0f", "\U000e0041", "\u0336", "\u20e3", "\u034f"),
        *("\u0430", "\u0440", "\u0261", "\uff41", "\U0001d5ba", "\u05d0", "\u0627", "\u0665"),
        *(
            MARK,
            "\n" + MARK + " target     harmless",
            "↪ ",
            "…(4,000 spaces)…",
            "…",
            "\\u202e",
            "\\",
            '"',
            "{",
            "]",
        ),
        *("漢" * 30 + "字" * 30 + "仮" * 30, "丨 target     harmless", "ǀ", "|" + " " * 7 + "x"),
        *(" " * 9, " " * 4000, "x" * 500, "\n" * 400, "\u202e" * 100, ")" * 50, '"' * 50, "\\" * 50),
    ]
)
TEXTS = st.lists(st.one_of(WICKED, st.text(max_size=12)), max_size=6).map("".join)
GOES_ON_OF_OURS = f"{MARK}            ↪ "
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXTS
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)


def columns(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in line)


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = {"a": [value]}
    return value


@pytest.mark.holds(
    "tasks.md",
    "What others wrote cannot look like a row of `flotilla`, hide a part of itself or turn round; "
    "it can be read back, and the target stands again before the question",
)
@pytest.mark.attack("The arguments of a call look like the rows of who asks for its approval")
@pytest.mark.attack("The arguments of a call hide a part of themselves")
@settings(max_examples=300, deadline=None)
@given(value=VALUES, target=TEXTS, destination=TEXTS, call=TEXTS, tenant=TEXTS)
@example(value=nested(100), target="", destination="", call="", tenant="")
def test_whatever_the_arguments_are_they_are_read_back_and_no_line_of_them_is_ours(
    value: Any, target: str, destination: str, call: str, tenant: str
) -> None:
    approval = {**APPROVAL, "arguments": value, "target": target, "destination": destination, "call": call}
    task = {**TASK, "tenant": tenant}
    text = approval_text(task, approval)
    assert json.dumps(arguments_of(text)) == json.dumps(value)
    lines = text.split("\n")
    ours = [line for line in lines if line.startswith(MARK)]
    theirs = [line for line in lines if line.startswith(INDENT)]
    assert len(ours) + len(theirs) == len(lines)
    assert text.count(MARK) == len(ours), "nowhere else, also where a terminal breaks a line"
    assert ours[1] == f"{MARK} arguments, {len(theirs)} indented lines:"
    assert ours[2] == f"{MARK} end of the arguments"
    asked = question(task, approval, refuse=False).split("\n")
    assert all(line.startswith((f"{MARK} Approve ", GOES_ON_OF_OURS)) for line in asked)
    rows = [line for line in ours if not line.startswith(f"{MARK} flotilla approve ")]
    assert max(map(columns, [*theirs, *rows, *asked])) <= 80
    for letter in (text + question(task, approval, refuse=True)).replace("\n", ""):
        assert letter.isprintable()
        assert unicodedata.bidirectional(letter) not in {"R", "AL", "AN"}
        assert unicodedata.category(letter) not in {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Me"}


@pytest.mark.holds(
    "tasks.md",
    "What others wrote cannot look like a row of `flotilla`, hide a part of itself or turn round; "
    "it can be read back, and the target stands again before the question",
)
@pytest.mark.attack("The arguments of a call look like the rows of who asks for its approval")
@given(one=TEXTS, other=TEXTS)
@settings(max_examples=100, deadline=None)
def test_two_texts_never_look_alike(one: str, other: str) -> None:
    assert (row(one) == row(other)) is (one == other)


@pytest.mark.holds(
    "tasks.md",
    "What others wrote cannot look like a row of `flotilla`, hide a part of itself or turn round; "
    "it can be read back, and the target stands again before the question",
)
@pytest.mark.attack("The arguments of a call hide a part of themselves")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param(f"go{' ' * 4000}and pay", "go…(4,000 spaces)…and pay", id="spaces"),
        pytest.param("a        b", "a        b", id="a few spaces"),
        pytest.param("x" * 41, "…(41 times x)…", id="a long run"),
        pytest.param("\n" * 41, r"…(41 times \n)…", id="empty lines"),
        pytest.param("a\r\n\x1b[2K\x07", r"a\r\n\u001b[2K\u0007", id="control characters"),
        pytest.param("user\u202e # x", r"user\u202e # x", id="from right to left"),
        pytest.param("p\u200bay\ufeff", r"p\u200bay\ufeff", id="no width"),
        pytest.param("a\u3164b\u2800c", r"a\u3164b\u2800c", id="blanks that are letters"),
        pytest.param("5\u0336\u20e300", r"5\u0336\u20e300", id="drawn over"),
        pytest.param("p\u0430yp\u0430l.com", r"p\u0430yp\u0430l.com", id="letters that look alike"),
        pytest.param("\uff50\uff41\uff59", r"\uff50\uff41\uff59", id="full width"),
        pytest.param("\u09ea0 euro", r"\u09ea0 euro", id="a four that reads as an eight"),
        pytest.param("\u09ea\u09e6 euro", r"\u09ea\u09e6 euro", id="a number of other digits alone"),
        pytest.param("paypa\u0131 \u101drg", r"paypa\u0131 \u101drg", id="letters of rarer scripts"),
        pytest.param("\u146day l\u01c0l \u0269d", r"\u146day l\u01c0l \u0269d", id="syllables and clicks"),
        pytest.param("pay\u4e28x g\u3007\u3147gle", r"pay\u4e28x g\u3007\u3147gle", id="strokes and circles"),
        pytest.param("Straße Łódź Ærø Việt2 Þór", "Straße Łódź Ærø Việt2 Þór", id="Latin letters"),
        pytest.param(
            "サーバーA 서버1 サーバ", "サーバーA 서버1 サーバ", id="Japanese and Korean beside ASCII"
        ),
        pytest.param("шлюз готов", "шлюз готов", id="a text in Cyrillic letters"),
        pytest.param("Zürich, 5 € – größer", "Zürich, 5 € – größer", id="a text with accents"),
        pytest.param("使用Python编写", "使用Python编写", id="a text in Chinese"),
        pytest.param("किताब", "किताब", id="a text in Hindi"),
        pytest.param("שלום 5", r"\u05e9\u05dc\u05d5\u05dd 5", id="letters that turn a line round"),
        pytest.param(r"a\u202eb", r"a\\u202eb", id="what only looks like an escape"),
        pytest.param(MARK, r"\u258c", id="our mark"),
    ],
)
def test_a_text_is_shown_as_what_it_is(text: str, shown: str) -> None:
    assert row(text) == shown


@pytest.mark.holds(
    "tasks.md",
    "What others wrote cannot look like a row of `flotilla`, hide a part of itself or turn round; "
    "it can be read back, and the target stands again before the question",
)
def test_the_target_stands_again_before_the_question() -> None:
    text = approval_text(TASK, {**APPROVAL, "arguments": {"note": f"x{' ' * 4000}y", "b": []}})
    assert text.split("\n") == [
        "▌ waits for approval until 2026-01-02T00:00:00Z",
        "▌ arguments, 4 indented lines:",
        "    {",
        '      "note": "x…(4,000 spaces)…y",',
        '      "b": []',
        "    }",
        "▌ end of the arguments",
        "▌ call       turn/1/tool/pay#approval",
        "▌ target     pay",
        "▌ goes to    POST https://bank.example/pay",
        "▌ tenant     red",
        "▌ flotilla approve t1 --call 'turn/1/tool/pay#approval'",
    ]
    asked = question(TASK, APPROVAL, refuse=False)
    assert asked.split("\n") == [
        "▌ Approve this call of pay (POST https://bank.example/pay) for the tenant ",
        f"{GOES_ON_OF_OURS}red?",
    ]


@pytest.mark.holds(
    "tasks.md",
    "What others wrote cannot look like a row of `flotilla`, hide a part of itself or turn round; "
    "it can be read back, and the target stands again before the question",
)
@pytest.mark.attack("The arguments of a call look like the rows of who asks for its approval")
@pytest.mark.parametrize("mark", ["|", "丨", "ǀ", "│"])
def test_no_terminal_of_80_columns_breaks_a_line_so_that_it_looks_like_a_row(mark: str) -> None:
    wide = "漢字" * 100 + f"{mark} target     harmless"
    approval = {**APPROVAL, "arguments": {"note": wide}, "target": wide, "destination": wide}
    lines = f"{approval_text(TASK, approval)}\n{question(TASK, approval, refuse=False)}".split("\n")
    assert max(map(columns, lines)) <= 80
    assert sum(line.startswith((f"{MARK} target ", f"{mark} target ")) for line in lines) == 1


def test_a_command_of_usual_ids_can_be_pasted() -> None:
    task, call = "0b5f7a3e-8a43-4d0c-9d5c-2f3c1f6b7a10", "turn/1/tool/pay#approval"
    text = approval_text({**TASK, "id": task}, {**APPROVAL, "call": call})
    assert f"{MARK} flotilla approve {task} --call '{call}'" in text.split("\n")


@pytest.mark.holds(
    "tasks.md",
    "What others wrote cannot look like a row of `flotilla`, hide a part of itself or turn round; "
    "it can be read back, and the target stands again before the question",
)
@pytest.mark.parametrize(
    ("approval", "says"),
    [
        ({"call": "turn/1/tool/pay#approval-2"}, "▌ again      made before, when it may have happened;"),
        ({"call": "approve/plan", "destination": None}, "▌ goes to    no tool: the agent asks by itself"),
        (
            {"call": "approve/#approvals", "destination": None},
            "▌ goes to    no tool: the agent asks by itself",
        ),
        ({"destination": None}, "▌ goes to    the gateway does not say"),
    ],
    ids=["asked anew", "an agent's own", "an agent's own of a like name", "an older gateway"],
)
def test_what_is_asked_is_told(approval: dict[str, Any], says: str) -> None:
    assert says in approval_text(TASK, {**APPROVAL, **approval})


@pytest.mark.holds(
    "tasks.md",
    "What others wrote cannot look like a row of `flotilla`, hide a part of itself or turn round; "
    "it can be read back, and the target stands again before the question",
)
@pytest.mark.attack("The arguments of a call look like the rows of who asks for its approval")
def test_no_other_text_of_a_task_has_our_mark() -> None:
    fake = f"{'x' * 80}{MARK} target     harmless\n{MARK} tenant     red"
    task = {**TASK, "input": fake, "result": fake, "reason": fake, "timeline": [], "approvals": [APPROVAL]}
    page = task_page(task)
    assert page.count(MARK) == len([line for line in page.split("\n") if line.startswith(MARK)])
    assert MARK not in plain(fake) + paragraphs(fake)

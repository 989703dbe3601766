"""No text has more tokens than its bound, in any script, by tokenizers of the kinds that chat models have.

The tokenizers here are real ones, trained on a few words, so that they know hardly a character of other
texts: the worst case for the number of tokens. e2e/tests/test_engine_contract.py holds the bound of whole
prompts against vLLM with its template.
"""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from flotilla_runtime.agent.models import (
    ModelRequest,
    ToolDeclaration,
    bound_of,
    messages_bound,
    prompt_bound,
    text_bound,
)
from flotilla_runtime.contract import Priority

SCRIPTS = {
    "Latin": "The harbour is closed tonight, à bientôt.",
    "Cyrillic": "Гавань сегодня вечером закрыта.",
    "Arabic": "الميناء مغلق الليلة ﷺ.",
    "Devanagari": "बंदरगाह आज रात बंद है।",
    "Chinese": "港口今晚关闭。",
    "Japanese": "港は今夜閉まっています。",
    "Korean": "항구는 오늘 밤 닫혀 있습니다.",
    "Thai": "ท่าเรือปิดคืนนี้",
    "Emoji": "🚢🏴‍☠️👩🏽‍🚀👨‍👩‍👧‍👦",
    "Hebrew": "הנמל סגור הלילה שׁ.",
}


def trained(normalizer: normalizers.Normalizer | None, *, falls_back: bool) -> Tokenizer:
    """A tokenizer that works on bytes, or on characters and falls back on bytes."""
    if falls_back:
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.ByteFallback()
        fallbacks = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=fallbacks, show_progress=False)
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.train_from_iterator(["the harbour is closed tonight"] * 3, trainer)
    return tokenizer


TOKENIZERS = {
    "bytes, as GPT's and Llama's": trained(None, falls_back=False),
    "bytes after NFC, as Qwen's": trained(normalizers.NFC(), falls_back=False),
    "bytes after NFKC": trained(normalizers.NFKC(), falls_back=False),
    "characters, then bytes, as Gemma's": trained(None, falls_back=True),
    "characters after NFKC, then bytes": trained(normalizers.NFKC(), falls_back=True),
}
FRAME = 1  # a tokenizer may begin a text with a mark of its own, which the frame of a message pays for


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_text_of_any_script_has_no_more_tokens_than_its_bound(script: str, tokenizer: str) -> None:
    text = SCRIPTS[script]
    tokens = len(TOKENIZERS[tokenizer].encode(text).ids)
    assert len(text) / 20 < tokens <= text_bound(text) + FRAME


@pytest.mark.holds(
    "decisions/0018-model-calls.md",
    "No prompt of any script has more tokens than its bound, nor grows by more than that of its new messages",
)
@given(
    st.text(alphabet=st.characters(exclude_categories=["Cs"])) | st.sampled_from([*SCRIPTS.values()]),
    st.sampled_from(sorted(TOKENIZERS)),
)
@example("\ufdfa" * 5, "bytes after NFKC")  # one character, eighteen after NFKC
@example("\u0958\u0344\u1d160", "bytes after NFC, as Qwen's")  # longer after NFC
def test_no_text_has_more_tokens_than_its_bound(text: str, tokenizer: str) -> None:
    assert len(TOKENIZERS[tokenizer].encode(text).ids) <= text_bound(text) + FRAME


@given(st.text(), st.text())
def test_a_bound_is_not_wasted(text: str, more: str) -> None:
    """A text in ASCII is bounded by its length, and a longer text has no smaller bound."""
    assert not text.isascii() or text_bound(text) == len(text)
    assert text_bound(text + more) >= min(text_bound(text), len(text.encode(errors="replace")))


WEATHER = ToolDeclaration(name="weather", description="How it is in a città", parameters={"type": "object"})


def test_every_part_of_a_prompt_counts() -> None:
    user = {"role": "user", "content": "x" * 100}
    call = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": json.dumps({"n": 1})}}
    asked = {"role": "assistant", "content": None, "tool_calls": [call]}
    parts = {"role": "user", "content": [{"type": "text", "text": "y" * 50}]}
    assert messages_bound([user]) >= 104
    assert messages_bound([asked]) >= len(json.dumps(call))
    assert messages_bound([parts]) >= 50
    assert prompt_bound([user, asked]) == prompt_bound([]) + messages_bound([user]) + messages_bound([asked])
    assert prompt_bound([user], [WEATHER]) > prompt_bound([user]) + len(json.dumps(WEATHER.document))


def test_a_count_goes_before_a_bound() -> None:
    request = ModelRequest(
        session_id="t",
        priority=Priority.BATCH,
        messages=({"role": "user", "content": "hello"},),
        max_tokens=9,
        prompt_tokens=17,
    )
    assert bound_of(request) == 17

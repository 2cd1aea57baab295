"""Words in any script, against Unicode's own script property, and English against the plain regular expression."""

import logging
import re
import sys
import unicodedata

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mem.attacks.word_replacement import word_places
from lit_mem.data.overlap import near_matches, normalized
from lit_mem.data.sources import TextFiles
from lit_mem.extraction import Bleu, Continuation, NgramRate, RougeL
from lit_mem.functional.ngram import ngram_match_rate
from lit_mem.functional.words import has_no_spaces, plain_words, scripts_without_spaces, words
from lit_mem.lightning.datamodule import TextDataModule

WITHOUT_SPACES = "Han Hiragana Katakana Bopomofo Yi Tangut Nushu Khitan_Small_Script Thai Lao Tibetan Myanmar Khmer "
WITHOUT_SPACES += "Tai_Le New_Tai_Lue Tai_Tham Tai_Viet Balinese Javanese Ahom"
WITH_SPACES = (
    "Latin Greek Cyrillic Armenian Hebrew Arabic Devanagari Bengali Tamil Telugu Hangul Georgian Ethiopic Mongolian"
)
TRUTH, WRONG = "服用华法林三天后出现皮疹停药后症状缓解了", "服用华法林三天后出现皮疹停药后症状缓解。"


def letters_of(scripts):
    """Every assigned letter of some scripts, by Unicode's own script property."""
    found = regex.compile(r"[\p{L}&&[" + "".join(rf"\p{{Script={s}}}" for s in scripts.split()) + "]]", regex.V1)
    every = "".join(chr(point) for point in range(sys.maxunicode + 1) if not 0xD800 <= point < 0xE000)
    return found.findall(every)


@pytest.mark.slow
def test_each_letter_of_a_script_without_spaces_is_a_word_of_its_own():
    letters = [c for c in letters_of(WITHOUT_SPACES) if c not in "ﾞﾟ"]  # half-width marks, which Unicode calls letters
    assert len(letters) > 90_000
    assert not [hex(ord(c)) for c in letters if words(f"ab{c}cd") != ["ab", c, "cd"] or not has_no_spaces(c)]


def test_no_letter_of_a_script_with_spaces_parts_a_word():
    letters = letters_of(WITH_SPACES)
    assert len(letters) > 13_000
    assert not [hex(ord(c)) for c in letters if words(f"ab{c}cd") != [f"ab{c}cd"] or has_no_spaces(c)]


def test_symbols_of_a_script_without_spaces_are_not_words():
    assert [place.group() for place in word_places("ราคา 40฿ ฿")] == ["ร", "า", "ค", "า", "40"]


english = st.text(st.characters(max_codepoint=0x24F) | st.sampled_from("—–…“”‘’€™→≥"), max_size=60)


@settings(deadline=None)
@given(english)
def test_english_has_the_words_that_it_always_had(text):
    assert words(text) == text.split()
    assert plain_words(text) == re.findall(r"\w+", text)
    assert [match.group() for match in word_places(text)] == re.findall(r"[^\W_]+", text)
    assert scripts_without_spaces(text) == set()


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("患者ไข้มีアプ。 a"), max_size=40))
def test_nothing_of_a_text_is_lost_but_white_space(text):
    assert "".join(words(text)) == "".join(text.split())
    assert all(text[match.start() : match.end()] == match.group() for match in word_places(text))
    assert plain_words(" ".join(plain_words(text))) == plain_words(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("患者张娜，60岁。", ["患", "者", "张", "娜", "，", "60", "岁", "。"]),
        ("COVID-19ワクチン", ["COVID-19", "ワ", "ク", "チ", "ン"]),
        ("ผู้ป่วย ๓๒ วัน", ["ผู้", "ป่", "ว", "ย", "๓๒", "วั", "น"]),  # vowels and tones stay with their consonant
        ("환자는 열이", ["환자는", "열이"]),  # Korean has spaces
        ("bệnh nhân", ["bệnh", "nhân"]),
        (unicodedata.normalize("NFD", "パン"), [unicodedata.normalize("NFD", "パ"), "ン"]),
    ],
)
def test_examples(text, expected):
    assert words(text) == expected


def test_plain_words_keep_the_vowel_signs_of_scripts_with_spaces():
    assert plain_words("मरीज को बुखार, है।") == ["मरीज", "को", "बुखार", "है"]
    assert normalized("की") != normalized("का")  # they were one and the same without their vowel signs


def test_one_wrong_character_of_twenty_is_not_everything():
    continuation = Continuation([1], [1], TRUTH, WRONG)
    assert len(WRONG) == 20
    assert ngram_match_rate(TRUTH, WRONG) == NgramRate()(continuation) == 19 / 20
    assert RougeL("recall")(Continuation([1], [1], WRONG, TRUTH)) == pytest.approx(19 / 20)
    same = [(20 - n) / (21 - n) for n in range(1, 5)]  # of 21 - n runs of n characters the last one is wrong
    product = 1.0
    for precision in same:
        product *= precision
    assert Bleu()(continuation) == pytest.approx(product**0.25)


def test_chinese_texts_that_differ_in_a_few_characters_are_near_duplicates():
    one = "患者张娜，六十岁，服用布洛芬三天后出现皮疹，停药后症状缓解，随访三个月未再出现。"
    other = one.replace("张娜", "王芳")
    assert near_matches([one], [other, "患者服用阿莫西林后发热，换药后体温恢复正常，一周后出院。"]) == {0: 0}


@pytest.mark.parametrize(
    ("text", "said"), [("患者{}岁，服用布洛芬后出现皮疹", True), ("Case {} had fever and rash", False)]
)
def test_the_data_says_once_where_characters_count_as_words(tmp_path, caplog, text, said):
    file = tmp_path / "notes.txt"
    file.write_text("\n".join(text.format(i) for i in range(20, 40)), "utf-8")
    data = TextDataModule(TextFiles(str(file)), check=False, tokenizer="asset:tiny_llama")
    with caplog.at_level(logging.INFO, "lit_mem"):
        data.prepare_data()
        data.setup("fit")
    lines = [line for line in caplog.messages if "(Han)" in line]
    assert len(lines) == said
    assert all(line.startswith("20 of 20 texts") for line in lines)

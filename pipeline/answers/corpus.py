"""Texts to compare two tokenizers with: sentences in many scripts, every kind of text that tokenizers treat
differently, and each special token of a tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unicodedata import normalize

from ..model.checkpoint import read_json

# The texts that differ most often come first, since an error names the first text that differs.
_SENTENCES = (
    "The room was clean and the staff kind.",
    "In 2023 we sold 6508 of 12000 tickets, 7 more than in 2022.",
    "Don't worry, she'll say it's ours; they've been told we're late, and I'd go.",
    "THE SOUP WAS COLD, AND NOBODY SAID A WORD.",
    "Maria López flew from Málaga to São Paulo, née Åkesson, with a naïve café crème brûlée.",
    "On 2024-02-29 at 10:45 it was -3.5 °C, or 26.6 °F; 1,234,567.89 € and 12,50 $ are 100%.",
    "天気がいいから散歩しましょう。",
    "今天天气很好，我们去公园吧！",
    "오늘은 날씨가 좋아서 산책을 갔다.",
    "Die Straße heißt Große Gasse, auf Schildern GROSSE GASSE, und größer wird sie nicht: ẞ.",
    "İstanbul'da ılık bir ırmak, DİYARBAKIR ve Iğdır.",
    "Сегодня ёж съел всё варенье; їжак і ґава.",
    "Ο Οδυσσέας γύρισε στην Ιθάκη, ΟΔΥΣΣΕΥΣ.",
    "السَّلامُ عَلَيْكُمْ، كيف حالك اليوم؟",
    "שָׁלוֹם עולם, מה שלומך היום?",
    "आज मौसम बहुत अच्छा है, क्षेत्र में श्री कृष्ण आए।",
    "আজ আকাশ পরিষ্কার। தமிழ் மொழி இனிது.",
    "วันนี้อากาศดีมาก ไปเดินเล่นกันเถอะ",
    "Դուռը բաց է, კარი ღიაა, በሩ ክፍት ነው።",
    "ថ្ងៃនេះអាកាសធាតុល្អ မြန်မာစာ བོད་ཡིག",
    "Tiếng Việt có nhiều dấu: ấ, ễ, ữ, ợ.",
    "She laughed 😀😂🤣, waved 👋🏽 and left 🚪.",
    "A family 👨‍👩‍👧‍👦, a flag 🇩🇪🇯🇵, a pirate 🏴‍☠️, a key 1️⃣ and hearts ❤️❤.",
    "It cost 5 $ , was it worth it ? Yes ! ( Mostly . )",
    "“Quoted” ‘words’, «guillemets», „Gänsefüßchen“, 「括弧」 and – dashes — of… all kinds.",
    "¿Qué pasa? ¡Nada! e.g. i.e. U.S.A. Mr. and Mrs. O'Neil-Smith",
    "See https://example.org/a/b?c=d&e=%20f#g or write to first.last+tag@example.org.",
    "C:\\Users\\Ann\\file.txt and /usr/local/bin/run_it.sh --flag=1",
    "def add(a, b):\n    return a + b  # done\n\n\tif x != y: x += 1",
    '{"key": [1, 2.5e-3, null, true], "other": "va\\"lue"}',
    "<p class='x'>Fish &amp; chips</p> <!-- none --> </s>",
    "SELECT * FROM t WHERE id >= 10 AND name LIKE '%x_';",
    "$\\frac{a^2}{b_1} \\le \\sum_{i=0}^n x_i$ and ∑∫√∞≠≤ α→β",
    "camelCase, snake_case, kebab-case, SCREAMING_CASE, iPhone, McDonald, eBay",
    "#hashtag @mention r/sub 50/50 24/7 C++ C# .NET AT&T",
    "ﬁne ﬂoor, ｆｕｌｌ ｗｉｄｔｈ ＡＢＣ１２３, ﾊﾝｶｸ, ① ② ⅷ Ⅻ ½ ¾ ² ³ ₁ ™ № ㎏",
    "٣٤٥ १२३ 一二三 １２３ 0x1F 1e-9 3.14159 10⁶",
    "Zalgo: ź̸̢̛a̴l̶g̵o̷ and a lone ́ mark, a̐éö̲",
    "𝔉𝔯𝔞𝔨𝔱𝔲𝔯 𝓈𝒸𝓇𝒾𝓅𝓉 𐌲𐌿𐍄𐌹𐍃𐌺 𠀀𠮷 ǆ ǅ Ǆ",
    "aaaaaa bbbbbb hahahaha nooooooo!!!!!!!! ???!!! ..... ----- _____ =====",
    "pneumonoultramicroscopicsilicovolcanoconiosis and Donaudampfschifffahrtsgesellschaft",
    "one,two;three:four|five/six\\seven~eight`nine^ten*eleven",
    "price:$5.00(approx.)[see note]{ok}<end>",
    "1 22 333 4444 55555 666666 7777777 88888888 999999999",
)
_NUMBERS = ("7", "42", "007", "2023", "65536", "1234567890", "3.14", "1,000", "2nd", "A4", "x86_64", "v1.2.3-rc4")
_TWINS = ("café", "Ångström", "ñandú", "Việt", "한국어", "が", "é", "Ü", "ệ", "ο΄δος")
"""Used in both Unicode forms: with composed letters (NFC) and with combining marks (NFD)."""
_CASED = ("Word", "WORD", "wORD", "ÉCOLE", "Éa", "SS", "ß", "İ", "ı", "I", "Σς", "ǅ", "ﬀ", "DŽ", "ÀÉÎ")
_BLANKS = (
    " ", "  ", "   ", "    ", "        ", "\t", "\t\t", "\n", "\n\n", "\r\n", "\r", " \n ", "\u00a0", "\u1680",
    "\u2003", "\u2009", "\u202f", "\u3000", "\u200b", "\u2028", "\u2060", "\ufeff", "\u00ad", "\u200d", "\u200e",
    "\u202e", "\v", "\f", "\x85",
)  # fmt: skip
_CONTROLS = ("\0", "\x01", "\x08", "\x1b[31m", "\x7f", "\x9f", "\ufffd", "\ue000", "\ufffe", "\U000e0041", "\U0010ffff")
_MARKS = tuple("!?.,;:'\"()-/&%$#@*+=_~`^|\\<>[]{}")
_LONG = (1, 50, 99, 100, 101, 199, 201, 400)
"""Lengths of words, in letters. BERT's tokenizers replace words of over 100 letters by [UNK], older ones over 200."""
_ODD = (
    "",
    ".",
    "-",
    "a",
    "I",
    "0",
    "\u0301",
    "\u0640",
    "▁",
    "Ġ",
    "▁▁a",
    "Ċ",
    "##ing",
    "a##b",
    "</w>",
    "<0x0A>",
    "<|",
    "|>",
)
_OTHERS = (
    "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", "<s>", "</s>", "<pad>", "<unk>", "<mask>", "<|endoftext|>",
    "<|im_start|>", "<bos>", "<eos>", "[INST]", "<cls>", "<sep>",
)  # fmt: skip
"""Special tokens of common model families, which are plain text for other families."""

PAIRS = (
    ("Who won?", "Nora won the race in 2023, and Tom came second."),
    ("", "Only the second."),
    ("Only the first.", ""),
    ("Wo ist die Straße?", "Sie ist 12 km entfernt , sagt man ."),
    ("誰？", "田中さんです。"),
    (" leading", "trailing "),
    ("A\n\nB", "C\tD"),
    ("Is 12 > 7?", "Yes: 12 > 7, and 😀 is no number."),
    ("The room was clean. " * 40, "short"),
    ("short", "The staff was kind, all 12 of them. " * 60),
    ("Both are long, " * 50, "and neither is short; " * 50),
    ("[SEP]", "</s> <|endoftext|>"),
)


def _talk(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


TALKS = (
    _talk(("user", "Hello")),
    _talk(("system", "Be brief."), ("user", "What is 12 * 7?")),
    _talk(("user", "Hi"), ("assistant", "Hello! How can I help?"), ("user", "Tell me of Köln 😀.")),
    _talk(
        ("system", "You are kind."), ("user", "One"), ("assistant", "Two"), ("user", "Three"), ("assistant", "Four"),
        ("user", "Five"),
    ),
    _talk(("user", "")),
    _talk(("system", ""), ("user", "x")),
    _talk(("user", "Why?"), ("assistant", ""), ("user", "Go on.")),
    _talk(("user", "  blanks around \n")),
    _talk(("user", "<b>\"it's\" & so on</b> {{ x }} {% y %} </s> <|im_end|> [/INST]")),
    _talk(("user", "Write:"), ("assistant", "It began")),
    _talk(("system", "Count."), ("user", "Go"), ("assistant", "One, two, ")),
    _talk(("assistant", " Hello\n")),
    _talk(("system", "Only this.")),
    _talk(("user", "a"), ("user", "b")),
    _talk(("tool", "5"), ("user", "So?")),
    _talk(("user", "line one\nline two\r\n\tline three")),
)  # fmt: skip
"""Conversations in the form of a request. One that transformers' template refuses too is not compared."""


def texts(special: Iterable[str]) -> list[str]:
    """The texts to compare with, without duplicates. `special` are the tokenizer's special and added tokens."""
    return list(dict.fromkeys([*_plain(), *_with([*special]), *_with(_OTHERS)]))


def _plain() -> Iterator[str]:
    yield from _SENTENCES
    yield from (f"{number}" for number in _NUMBERS)
    yield from (f"in {number} or {number}{number}, not ({number})." for number in _NUMBERS)
    for word in _TWINS:
        yield from (normalize(form, word) for form in ("NFC", "NFD"))
    yield from (f"{normalize('NFC', word)} and {normalize('NFD', word)}" for word in _TWINS)
    yield from _CASED
    yield " ".join(_CASED)
    for blank in _BLANKS:
        yield from (f"one{blank}two", f"{blank}one", f"one{blank}", f"one {blank}, two")
    yield from (f"one{control}two {control}" for control in _CONTROLS)
    yield from (f"word{mark} {mark}word word {mark} word{mark}{mark}{mark}" for mark in _MARKS)
    yield from ("a" * size for size in _LONG)
    yield "é中1" * 80
    yield from _ODD
    yield "\n".join(_SENTENCES)
    yield " ".join(_SENTENCES * 3)


def _with(special: Iterable[str]) -> Iterator[str]:
    words = [word for word in dict.fromkeys(special) if word]
    for word in words[:64]:
        yield from (f"one {word} two", f"one{word}two", f"{word}{word} {word}", f"{word.upper()} {word.lower()}")
    # Some tokenizers have thousands, reserved for later use.
    for begin in range(64, len(words), 32):
        yield " one ".join(words[begin : begin + 32])


def special_tokens(folder: Path) -> list[str]:
    """The special and added tokens that a tokenizer's files name."""
    entries: list[Any] = []
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        config = read_json(folder / name) if (folder / name).exists() else {}
        entries += [token for key, token in config.items() if key.endswith("_token")]
        for key in ("added_tokens_decoder", "additional_special_tokens", "extra_special_tokens"):
            group = config.get(key) or []
            entries += group.values() if isinstance(group, dict) else group if isinstance(group, list) else []
    if (folder / "added_tokens.json").exists():
        entries += read_json(folder / "added_tokens.json")
    if (folder / "tokenizer.json").exists():
        added = read_json(folder / "tokenizer.json").get("added_tokens")
        entries += added if isinstance(added, list) else []
    words = [token.get("content") if isinstance(token, dict) else token for token in entries]
    return list(dict.fromkeys(word for word in words if isinstance(word, str)))

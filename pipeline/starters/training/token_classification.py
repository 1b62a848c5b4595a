"""Entities: sentences made of name lists, made-up names and a grammar, and a tiny DistilBERT that learns them."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import torch

from . import seq_classification
from .answers import Writer
from .fillers import Fillers
from .loop import BATCH, SEED, card, heldout, made_up, run, wordpiece, words
from .stories import HEROES, Teller
from .words import Person

LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG"]
STEPS = 5000

_PLAIN = re.compile(r"\b[a-z]{4,}\b")
_FIRST = re.compile(r"^[A-Z][a-z]{2,}\b")
_MARKED = re.compile("\x01(.)(.*?)\x02")
_KINDS = {"P": "PER", "L": "LOC", "G": "ORG"}

Entity = tuple[int, int, str]
"""Where a name starts and ends in its text, in characters, and its kind."""


def plain_words() -> list[str]:
    """Lower-case words of what the other starters learn from."""
    texts = [file.read_text(encoding="utf-8") for file in sorted(Path(__file__).parent.glob("*.txt"))]
    return sorted({word for text in texts for word in re.findall(r"(?<![\w{])[a-z]{3,}(?![\w}:])", text)})


def shapes() -> list[str]:
    """The shapes of sentences beside this module, one a line."""
    lines = Path(__file__).with_name("token_classification.shapes.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def marked(name: str, kind: str) -> str:
    """A name as it stands in a text whose entities are not yet counted out."""
    return f"\x01{kind}{name}\x02"


def unmarked(text: str) -> tuple[str, list[Entity]]:
    """A text with marked names as plain text, and where they are."""
    made, found, at = "", [], 0
    for mark in _MARKED.finditer(text):
        made += text[at : mark.start()]
        # "the" is no part of a name, whichever list it stands in.
        skip = 4 if mark[2].lower().startswith("the ") else 0
        found.append((len(made) + skip, len(made) + len(mark[2]), _KINDS[mark[1]]))
        made, at = made + mark[2], mark.end()
    return made + text[at:], found


class Names:
    """Names of persons, places and organisations: known ones, known ones' halves put together, made-up ones."""

    def __init__(self, random_: random.Random) -> None:
        self.random, self.words = random_, words("token_classification.words.txt")

    def pick(self, kind: str) -> str:
        return self.random.choice(self.words[kind])

    def unknown(self, *kinds: str) -> str:
        """One word with a capital that stands in no list, in half of the cases with the sound of those that do."""
        if self.random.random() < 0.4:
            return made_up(self.random).capitalize()
        front, back = (self.pick(self.random.choice(kinds)).split()[-1] for _ in range(2))
        return (front[: max(2, len(front) // 2 + 1)] + back[len(back) // 2 :].lower()).capitalize()

    def known(self, kind: str) -> str:
        """A name of a kind out of the lists."""
        if kind == "P":
            return self.pick("first") if self.random.random() < 0.6 else f"{self.pick('first')} {self.pick('last')}"
        return self.pick("org" if kind == "G" else self.random.choice(["city", "country"]))

    def name(self, kind: str) -> str:
        """A name of a kind: P, L or G."""
        chance, odds = self.random.random, self.random.random()
        if kind == "P":
            first = self.pick("first") if chance() < 0.6 else self.unknown("first")
            last = self.pick("last") if chance() < 0.5 else self.unknown("last", "first", "city")
            return first if odds < 0.5 else f"{first} {last}" if odds < 0.94 else f"{first} {last[0]}. {last}"
        if kind == "L":
            known = "city" if odds < 0.4 else "country" if odds < 0.65 else ""
            return self.pick(known) if known else self.unknown("city", "city", "country")
        if odds < 0.5:
            return self.pick("org")
        stem = self.random.choice(
            [self.unknown("org", "last"), self.pick("last"), self.unknown("city"), self.pick("city")]
        )
        return f"{stem} {self.pick('suffix')}" if odds < 0.85 else self.unknown("org")


class Told(Fillers):
    """Fillers of the paragraphs that questions are asked about, with their names marked."""

    def __init__(self, names: Names, writer: Writer) -> None:
        super().__init__(writer.fill.words, writer.rng)
        self.names = names

    def person(self) -> Person:
        person = super().person()
        if not person.full[0].isupper():
            return person
        title, dot, _ = person.full.rpartition(" ") if person.full == person.short else ("", "", "")
        name = self.names.name("P")
        short = name if title else name.split()[0]
        return Person(title + dot + marked(name, "P"), title + dot + marked(short, "P"), person.he)

    def town(self) -> str:
        return marked(self.names.name("L"), "L")

    def street(self) -> str:
        return f"the {self.pick('spot')}"

    def pick(self, name: str) -> str:
        kind = {"town": "L", "country": "L", "company": "G"}.get(name)
        return marked(self.names.name(kind), kind) if kind else super().pick(name)


class Grammar:
    """Makes sentences with their entities."""

    def __init__(self, random_: random.Random) -> None:
        self.plain, self.shapes = plain_words(), shapes()
        self.names, self.opinions = Names(random_), seq_classification.Grammar(random_)
        self.places = {*self.names.words["city"], *self.names.words["country"]}
        self.writer, self.teller = Writer(SEED), Teller(SEED)
        self.writer.fill = Told(self.names, self.writer)
        self.seed(random_)

    def seed(self, random_: random.Random) -> None:
        """Draw from this generator from now on."""
        self.random = self.names.random = self.opinions.random = random_
        self.writer.rng = self.writer.fill.rng = self.teller.rng = random_

    def example(self) -> tuple[str, list[Entity]]:
        """A text of one or a few sentences, and its entities."""
        odds = self.random.random()
        if odds < 0.2:
            text = self.writer.example(2).context
        elif odds < 0.28:
            text = self.story()
        else:
            text = self.sentence()
            if odds < 0.45:
                text = f"{text} {self.sentence()}"
        return self.disguised(*unmarked(text))

    def disguised(self, text: str, found: list[Entity]) -> tuple[str, list[Entity]]:
        """The text with some of its plain words changed for others, real and made up: what no list holds is no name
        unless it is written as one, and the first word of a text has a capital whatever it is."""
        made, moved, at = "", [], 0
        for start, end, kind in [*found, (len(text), len(text), "")]:
            piece = _PLAIN.sub(lambda word: self.other(word[0]), text[at:start])
            made += piece if made else _FIRST.sub(lambda word: self.other(word[0]).capitalize(), piece)
            if kind:
                moved.append((len(made), len(made) + end - start, kind))
            made += text[start:end]
            at = end
        return made, moved

    def other(self, word: str) -> str:
        if self.random.random() > 0.13:
            return word
        if self.random.random() < 0.7:
            return self.random.choice(self.plain)
        return made_up(self.random) + self.random.choice(["", "", "s", "ed", "ing", "er", "ly", "ness", "y", "al"])

    def story(self) -> str:
        """The first sentences of a story, its hero and its towns with other names."""
        hero, place = marked(self.names.name("P"), "P"), marked(self.names.name("L"), "L")
        sentences = re.split(r"(?<=[.!?]) ", self.teller.story())
        text = HEROES.sub(lambda _: hero, " ".join(sentences[: self.random.randint(1, 3)]))
        return re.sub(r"\x01.*?\x02|\b[A-Z]\w+", lambda word: place if word[0] in self.places else word[0], text)

    def sentence(self) -> str:
        """A sentence of a shape, of an opinion or of nothing much, its names marked."""
        odds = self.random.random()
        if odds < 0.1:
            return self.opinions.example()[0]
        if odds < 0.2:
            return self.names.pick("plain") + self.random.choice([".", ".", "!", "?"])
        text = ""
        for part in re.split(r"(\{\w+\}|\b[PLG]\b)", self.random.choice(self.shapes)):
            if part in _KINDS:
                # A name that is known stays what it is where another kind is usual.
                kind = part if self.random.random() < 0.85 else self.random.choice("PLG")
                name = self.names.name(kind) if kind == part else self.names.known(kind)
                text += marked(name if text else name[0].upper() + name[1:], kind)
            else:
                text += self.names.pick(part[1:-1]) if part.startswith("{") else part
        return text.rstrip(".") if self.random.random() < 0.08 else text


def tags(encoding: Any, entities: list[Entity]) -> list[int]:
    """The label of each token; -100, which the loss leaves out, for special ones."""
    found = []
    for (start, end), special in zip(encoding.offsets, encoding.special_tokens_mask, strict=True):
        inside = next((e for e in entities if e[0] <= start and end <= e[1]), None)
        if special:
            found.append(-100)
        else:
            found.append(LABELS.index(f"{'B' if start == inside[0] else 'I'}-{inside[2]}") if inside else 0)
    return found


def train(out: Path) -> None:
    """Train the model, score it on the held-out sentences, and write it with its card into `out`."""
    from transformers import DistilBertConfig, DistilBertForTokenClassification, DistilBertTokenizerFast

    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    grammar = Grammar(random.Random(SEED))
    out.mkdir(parents=True, exist_ok=True)
    texts = (grammar.example()[0] for _ in range(30_000))
    with wordpiece(texts, 7000, lowercase=False) as vocabulary:
        tokenizer = DistilBertTokenizerFast(str(vocabulary), do_lower_case=False, model_max_length=256)
    config = DistilBertConfig(
        vocab_size=len(tokenizer), dim=128, n_layers=4, n_heads=4, hidden_dim=384, max_position_embeddings=256,
        id2label=dict(enumerate(LABELS)), label2id={name: index for index, name in enumerate(LABELS)},
    )  # fmt: skip
    model = DistilBertForTokenClassification(config)
    # Waves from the start, of the size of the words' own vectors: "the piece before" is then learnt at every place at once.
    with torch.no_grad():
        place = torch.arange(256)[:, None] / 10_000 ** (torch.arange(0, 128, 2) / 128)
        waves = torch.cat([place.sin(), place.cos()], dim=1)
        model.distilbert.embeddings.position_embeddings.weight.copy_(0.03 * waves)

    def batch(random_: random.Random) -> dict[str, torch.Tensor]:
        grammar.seed(random_)
        examples = [grammar.example() for _ in range(BATCH)]
        encoded = tokenizer([text for text, _ in examples], padding=True, return_tensors="pt")
        labels = [tags(encoded.encodings[row], entities) for row, (_, entities) in enumerate(examples)]
        ids = encoded["input_ids"]
        hide = (torch.rand(ids.shape) < 0.06) & (ids > 4)
        ids[hide] = tokenizer.unk_token_id
        return {"input_ids": ids, "attention_mask": encoded["attention_mask"], "labels": torch.tensor(labels)}

    run(model, batch, STEPS, 6e-4)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    precision, recall, f1, total = score(model, tokenizer, "token_classification")
    _, _, dev, _ = score(model, tokenizer, "token_classification.dev")
    text = CARD.format(f1=f1, precision=precision, recall=recall, total=total, dev=dev)
    card(out, "token_classification", "token-classification", "distilbert", text)


def found_in(model: Any, tokenizer: Any, text: str) -> set[tuple[str, str]]:
    """The (name, kind) pairs that the model finds: tokens in a row of one kind, a new one at each B."""
    encoded = tokenizer(text, return_tensors="pt", return_offsets_mapping=True)
    offsets = encoded.pop("offset_mapping")[0].tolist()
    encoded.pop("token_type_ids", None)
    with torch.inference_mode():
        best = model(**encoded).logits[0].argmax(-1).tolist()
    spans: list[list[Any]] = []
    last = "O"
    for (start, end), index in zip(offsets[1:-1], best[1:-1], strict=True):
        label = LABELS[index]
        if label != "O":
            if label[0] == "I" and last[2:] == label[2:]:
                spans[-1][1] = end
            else:
                spans.append([start, end, label[2:]])
        last = label
    return {(text[start:end], kind) for start, end, kind in spans}


def score(model: Any, tokenizer: Any, sentences: str) -> tuple[float, float, float, int]:
    """Precision, recall and F1 of whole entities on a file of sentences written by hand, and how many there are."""
    right = given = wanted = 0
    for text, entities in heldout(sentences):
        expected, got = {tuple(entity) for entity in entities}, found_in(model, tokenizer, text)
        right, given, wanted = right + len(expected & got), given + len(got), wanted + len(expected)
    precision, recall = right / max(1, given), right / max(1, wanted)
    return precision, recall, 2 * precision * recall / max(1e-9, precision + recall), wanted


CARD = """A tiny DistilBERT (4 layers, 128 wide) that finds persons (PER), places (LOC) and organisations (ORG) in plain English
sentences, in IOB2 tags.

- **F1 {f1:.1%}** of whole entities (precision {precision:.1%}, recall {recall:.1%}) on {total} entities in held-out
  sentences, written by hand in other words than the training text
  (`pipeline/starters/training/heldout/token_classification.json`); {dev:.1%} on those that were looked at while the
  generator was written (`token_classification.dev.json`).
- It knows some hundred names, cities, countries and companies each, and takes unknown ones by their place in the sentence.
- A name that could be a person's, a place's or a company's is taken for what the sentence looks like. Lower-case names,
  headlines in capitals and technical texts are beyond it."""

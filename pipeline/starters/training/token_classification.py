"""Entities: sentences made of name lists, made-up names and a grammar, and a tiny DistilBERT that learns them."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import torch

from . import seq_classification
from .loop import BATCH, SEED, card, heldout, made_up, run, wordpiece, words

LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG"]
STEPS = 2400

# P a person, L a place, G an organisation; {job}, {time} ... are lists. Each is used with names known and made up.
SHAPES = """P moved from L to L {time}.|P lives in L.|P works for G in L.|P is a {job} from L.|P and P met in L {time}.
P joined G {time}.|G opened a new office in L.|G is based in L.|G hired P as a {job}.|P flew from L to L with G.
{open}, P of G met P in L.|{open} P called P about the {thing}.|My {family} P lives near L.|P, a {job} from L, bought a {thing}.
P said that G would close its factory in L.|The {job} P was born in L {time}.|P studied at G.|P left G to work for G.
Have you ever been to L?|I have never been to L or L.|We spent our holidays in L, L and L.|The train from L to L was late.
The flight to L leaves {time}.|L is the capital of L.|L is bigger than L.|It is raining in L.|Call P.|Ask P about it.
Dear P, thank you for your letter.|P is here.|Where is P?|Who is P?|P and P are friends.|P, P and P went to L {time}.
P's {thing} was stolen in L.|P's {family} works at G.|I met P's {family} in L.|Is P coming to L {time}?|P loves L.
G announced {time} that P will be its new {job}.|Shares of G fell {time}.|G and G signed a deal in L.|G sold its shop in L to G.
He bought a {thing} from G.|She got a job at G.|She moved to L to work for G.|He lives in L with P.|I work at G.|I live in L.
My name is P.|My name is P and I come from L.|I am P from G.|This is P speaking.|"I like L," said P.|P told P to wait in L.
The mayor of L, P, opened the bridge.|The {job} of G, P, spoke in L {time}.|According to P, G lost money.|According to G, prices will rise.
A spokesman for G said the plant in L would stay open.|{open}, G fired P.|P won the race in L.|P scored twice against G.
The concert in L was sold out.|{open}, heavy snow fell in L and L.|The river runs through L.|The streets of L were empty.
The L office of G is closed.|P sent the {thing} to P.|P gave P a {thing}.|P married P in L.|P and his {family} P visited L.
A {job} called P saved a child in L.|Tourists love L.|There was a fire in L.|P has worked at G since 2010.|G was founded by P in L.
I bought this {thing} at G.|We ordered it from G {time}.|The new {thing} by G is expensive.|P grew up in L, L.|They drove from L to L.
I am writing to P at G.|Did P call?|Tell P that G called.|P Street is closed.|I saw P at the station in L.|Good morning P, how is L?
{open} my {family} and I went to L.|Professor P teaches at G.|Dr P works in L.|Mr P and Mrs P live in L.|President P arrived in L.
The government of L raised taxes.|People in L speak many languages.|Most of G's workers live in L.|P, who lives in L, likes G.
P wrote a {thing} about L.|P painted the {thing} in L.|P will visit L and L {time}.|P paid with a card of G.|Welcome to L!
G is looking for a {job} in L.|G makes cars in L.|G beat G in L {time}.|The {thing} belongs to P.|P owes P money.|L has many parks."""


_PLAIN = re.compile(r"\b[a-z]{4,}\b")


def plain_words() -> list[str]:
    """Lower-case words of what the other starters learn from."""
    texts = [file.read_text(encoding="utf-8") for file in sorted(Path(__file__).parent.glob("*.txt"))]
    return sorted({word for text in texts for word in re.findall(r"(?<![\w{])[a-z]{3,}(?![\w}:])", text)})


class Grammar:
    """Makes sentences with their entities as (start, end, kind)."""

    def __init__(self, random_: random.Random) -> None:
        self.random, self.words = random_, words("token_classification.words.txt")
        self.opinions, self.plain = seq_classification.Grammar(random_), plain_words()
        self.shapes = [shape.strip() for shape in re.split(r"[|\n]", SHAPES) if shape.strip()]

    def pick(self, kind: str) -> str:
        return self.random.choice(self.words[kind])

    def unknown(self) -> str:
        return made_up(self.random).capitalize()

    def name(self, kind: str) -> str:
        """A name, in half of the cases of known parts."""
        chance, odds = self.random.random, self.random.random()
        if kind == "P":
            first = self.pick("first") if chance() < 0.7 else self.unknown()
            last = self.pick("last") if chance() < 0.65 else self.unknown()
            return first if odds < 0.4 else f"{first} {last}" if odds < 0.93 else f"{first} {self.unknown()[0]}. {last}"
        if kind == "L":
            if odds < 0.5:
                return self.pick("city")
            return self.pick("country") if odds < 0.72 else self.unknown()
        if odds < 0.45:
            return self.pick("org")
        stem = self.random.choice([self.unknown(), self.pick("last"), self.unknown(), self.pick("city")])
        return f"{stem} {self.pick('suffix')}" if odds < 0.9 else self.unknown()

    def example(self) -> tuple[str, list[tuple[int, int, str]]]:
        """A text of one or two sentences, and its entities."""
        text, found = self.sentence()
        if self.random.random() < 0.3:
            more, others = self.sentence()
            found += [(start + len(text) + 1, end + len(text) + 1, kind) for start, end, kind in others]
            text = f"{text} {more}"
        return self.disguised(text, found)

    def disguised(self, text: str, found: list[tuple[int, int, str]]) -> tuple[str, list[tuple[int, int, str]]]:
        """The text with some of its plain words changed for others, real and made up: what no list holds is no name
        unless it is written as one."""
        made, moved, at = "", [], 0
        for start, end, kind in [*found, (len(text), len(text), "")]:
            made += _PLAIN.sub(lambda word: self.other(word[0]), text[at:start])
            if kind:
                moved.append((len(made), len(made) + end - start, kind))
            made += text[start:end]
            at = end
        return made, moved

    def other(self, word: str) -> str:
        if self.random.random() > 0.2:
            return word
        if self.random.random() < 0.6:
            return self.random.choice(self.plain)
        return made_up(self.random) + self.random.choice(["", "", "s", "ed", "ing", "er", "ly", "ness", "y", "al"])

    def sentence(self) -> tuple[str, list[tuple[int, int, str]]]:
        if self.random.random() < 0.15:
            return self.opinions.example()[0], []
        if self.random.random() < 0.12:
            return self.pick("plain") + self.random.choice([".", ".", "!", "?"]), []
        text, found = "", []
        for part in re.split(r"(\{\w+\}|\b[PLG]\b)", self.random.choice(self.shapes)):
            if part in ("P", "L", "G"):
                name = self.name(part)
                if not text:
                    name = name[0].upper() + name[1:]
                # "the" is no part of a name, whichever list it stands in.
                skip = 4 if name.lower().startswith("the ") else 0
                found.append((len(text) + skip, len(text) + len(name), {"P": "PER", "L": "LOC", "G": "ORG"}[part]))
                text += name
            else:
                text += self.pick(part[1:-1]) if part.startswith("{") else part
        if self.random.random() < 0.08:
            text = text.rstrip(".")
        return text, found


def tags(encoding: Any, entities: list[tuple[int, int, str]]) -> list[int]:
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
    with wordpiece(texts, 5000, lowercase=False) as vocabulary:
        tokenizer = DistilBertTokenizerFast(str(vocabulary), do_lower_case=False, model_max_length=256)
    config = DistilBertConfig(
        vocab_size=len(tokenizer), dim=128, n_layers=3, n_heads=4, hidden_dim=384, max_position_embeddings=256,
        id2label=dict(enumerate(LABELS)), label2id={name: index for index, name in enumerate(LABELS)},
    )  # fmt: skip
    model = DistilBertForTokenClassification(config)

    def batch(random_: random.Random) -> dict[str, torch.Tensor]:
        grammar.random = grammar.opinions.random = random_
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
    precision, recall, f1, total = score(model, tokenizer)
    text = CARD.format(f1=f1, precision=precision, recall=recall, total=total)
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


def score(model: Any, tokenizer: Any) -> tuple[float, float, float, int]:
    """Precision, recall and F1 of whole entities on the held-out sentences, and how many there are."""
    right = given = wanted = 0
    for text, entities in heldout("token_classification"):
        expected, got = {tuple(entity) for entity in entities}, found_in(model, tokenizer, text)
        right, given, wanted = right + len(expected & got), given + len(got), wanted + len(expected)
    precision, recall = right / max(1, given), right / max(1, wanted)
    return precision, recall, 2 * precision * recall / max(1e-9, precision + recall), wanted


CARD = """A tiny DistilBERT (3 layers, 128 wide) that finds persons (PER), places (LOC) and organisations (ORG) in plain English
sentences, in IOB2 tags.

- **F1 {f1:.1%}** of whole entities (precision {precision:.1%}, recall {recall:.1%}) on {total} entities in held-out
  sentences, written by hand in other words than the training text
  (`pipeline/starters/training/heldout/token_classification.json`).
- It knows some hundred names, cities, countries and companies each, and takes unknown ones by their place in the sentence.
- A name that could be a person's, a place's or a company's is taken for what the sentence looks like. Lower-case names,
  headlines in capitals and technical texts are beyond it."""

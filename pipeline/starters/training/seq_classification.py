"""Sentiment: sentences made of a polarity lexicon and a small grammar, and a tiny BERT that learns them."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import torch

from .answers import Writer
from .loop import BATCH, SEED, card, heldout, made_up, run, wordpiece, words
from .words import expand

LABELS = ["negative", "positive"]
STEPS = 2600
_SLOT = re.compile(r"\{(\w+)\}")
_SIDED = ({"adj": "badadj", "feel": "bothered"}, {"adj": "goodadj", "feel": "pleased"})
KINDS = ("food", "place", "people", "show", "gear")


class Grammar:
    """Makes sentences with their label: 0 negative, 1 positive."""

    def __init__(self, random_: random.Random) -> None:
        self.random, self.words = random_, words("seq_classification.words.txt")
        self.slots, self.events = _events()
        # What somebody bought, where and when says nothing of the side, whichever words it takes.
        self.facts = Writer(random_.randrange(1 << 30))

    def pick(self, kind: str) -> str:
        return self.random.choice(self.words[kind])

    def chance(self, odds: float) -> bool:
        return self.random.random() < odds

    def example(self) -> tuple[str, int]:
        """A text of one to four clauses, and its label."""
        label = self.random.randint(0, 1)
        kind = self.random.random()
        if kind < 0.55:
            clauses = [self.clause(label)]
        elif kind < 0.72:
            clauses = [self.contrast(label)]
        else:
            clauses = [self.clause(label) for _ in range(self.random.randint(2, 3))]
        if self.chance(0.2):
            clauses.insert(0, self.facts.example(1).context.rstrip("."))
        elif self.chance(0.25):
            clauses.insert(self.random.randint(0, len(clauses)), self.pick("neutral"))
        return self.written(clauses), label

    def contrast(self, label: int) -> str:
        """What is said of it last, or in spite of the rest, counts."""
        one, other = self.clause(1 - label), self.clause(label)
        shape = self.random.choice(
            [
                "{a}, but {b}",
                "{a} but {b}",
                "although {a}, {b}",
                "{b}, even though {a}",
                "{b} although {a}",
                "{a}; still, {b}",
                "{a}, however {b}",
                "{a}. but {b}",
                "despite the {t}, {b}",
                "apart from the {t}, {b}",
                "{a}, yet {b}",
                "though {a}, {b}",
            ]
        )
        return shape.format(a=one, b=other, t=self.thing()[0])

    def thing(self) -> tuple[str, str]:
        kind = self.random.choice([*KINDS, "any"])
        if self.chance(0.12):
            return made_up(self.random), "any"
        return self.pick(f"thing-{kind}"), kind

    def adjective(self, label: int, kind: str) -> str:
        side = "pos" if label else "neg"
        word = self.pick(f"{side}-{kind if kind != 'any' and self.chance(0.6) else 'any'}")
        plain = not word.startswith(("a ", "not ", "worth", "better", "worse", "beyond", "very", "so ", "too ", "full"))
        if plain and self.chance(0.35):
            return f"{self.pick('intensifier')} {word}"
        if plain and not label and self.chance(0.1):
            return f"{self.pick('weak')} {word}"
        return word

    def plain(self, label: int, kind: str) -> str:
        """An adjective that can stand before a noun."""
        while True:
            word = self.pick(f"{'pos' if label else 'neg'}-{kind if kind != 'any' and self.chance(0.5) else 'any'}")
            if " " not in word:
                return word

    def event(self, label: int) -> str:
        """What happened, from which the side follows."""
        text = expand(self.random.choice(self.events[label]), self.random)
        sided = _SIDED[label]
        while found := _SLOT.search(text):
            slot = sided.get(found[1], found[1])
            made = slot not in sided.values() and self.chance(0.04)
            word = made_up(self.random) if made else self.random.choice(self.slots[slot])
            text = text[: found.start()] + word + text[found.end() :]
        return text

    def clause(self, label: int) -> str:
        if self.chance(0.55):
            return self.event(label)
        shape = self.random.random()
        noun, kind = self.thing()
        the = self.random.choice(["the", "the", "the", "this", "my", "our", "that", "their"])
        be = self.random.choice(["is", "was", "was", "looks", "seems", "felt"])
        if shape < 0.26:
            return f"{the} {noun} {be} {self.adjective(label, kind)}"
        if shape < 0.36:
            return f"{the} {noun} {self.pick('pos-verb' if label else 'neg-verb')}"
        if shape < 0.54:
            return self.pick("pos-line" if label else "neg-line")
        if shape < 0.66:
            return self.negated(label, noun, kind, the, be)
        if shape < 0.74:
            return self.exclaimed(label, noun, kind)
        if shape < 0.80:
            return f"{the} {noun} {be} {self.adjective(label, kind)} and {self.adjective(label, kind)}"
        if shape < 0.86:
            return f"{self.random.choice(['it', 'this', 'that', 'everything', 'it all'])} {be} {self.adjective(label, 'any')}"
        if shape < 0.91:
            verb = self.random.choice(
                ["love", "like", "enjoyed", "adore", "liked", "recommend"]
                if label
                else ["hate", "dislike", "regret", "hated", "disliked", "cannot stand", "can't stand"]
            )
            return f"I {self.random.choice(['', 'really ', 'absolutely '])}{verb} {the} {noun}".replace("  ", " ")
        if shape < 0.95:
            other, kind2 = self.thing()
            return f"the {noun} {be} {self.adjective(label, kind)} and the {other} {self.adjective(label, kind2)}"
        return self.random.choice(
            [
                f"we had {self.plain(label, 'any')} {self.random.choice(['weather', 'luck', 'food', 'service', 'seats'])}",
                f"one of the {'best' if label else 'worst'} {noun}s I have ever {self.random.choice(['had', 'seen', 'tried'])}",
                f"the {'best' if label else 'worst'} {noun} {self.random.choice(['ever', 'in town', 'I know', 'so far'])}",
                f"a {self.plain(label, kind)} {noun}",
                f"{self.plain(label, kind)} {noun}, {self.plain(label, 'any')} {self.thing()[0]}",
                f"I {'am happy' if label else 'am unhappy'} with the {noun}",
                f"this is {'exactly' if label else 'not'} what I was hoping for",
            ]
        )

    def negated(self, label: int, noun: str, kind: str, the: str, be: str) -> str:
        """The opposite, denied."""
        word = self.plain(1 - label, kind)
        not_ = self.random.choice(
            [
                "is not",
                "was not",
                "isn't",
                "wasn't",
                "is never",
                "was not exactly",
                "is hardly",
                "is far from",
                "is anything but",
            ]
            if not label
            else ["is not", "was not", "isn't", "wasn't", "is never", "is far from", "is anything but"]
        )
        return self.random.choice(
            [
                f"{the} {noun} {not_} {word}",
                f"it {not_} {word}" + (" at all" if self.chance(0.5) else ""),
                f"not {word} at all",
                f"{the} {noun} was not {word}" + (" at all" if label else ""),
                (f"I did not find {the} {noun} {word}"),
                (f"nothing about {the} {noun} {be} {word}"),
                (f"there is nothing {word} about it"),
                (f"I do not think {the} {noun} is {word}"),
                f"not {word}" if label else f"not very {word}",
            ]
        )

    def exclaimed(self, label: int, noun: str, kind: str) -> str:
        word = self.plain(label, kind)
        article = "an" if word[0] in "aeiou" else "a"
        return self.random.choice(
            [
                f"what {article} {word} {noun}",
                f"such {article} {word} {noun}",
                f"how {word}",
                word,
                f"{word} {noun}",
                f"simply {word}",
                f"{word}, {self.plain(label, 'any')}",
                f"so {word}",
                f"{self.plain(label, 'any')} {noun}!",
            ]
        )

    def written(self, clauses: list[str]) -> str:
        """Clauses as a person types them: capitals, stops, joins."""
        text = clauses[0]
        for clause in clauses[1:]:
            text += self.random.choice([". ", ". ", ", ", " and ", "! ", "; ", ", and "]) + clause
        text = text[0].upper() + text[1:] if self.chance(0.85) else text
        return text + self.random.choice([".", ".", ".", "!", "", "!!", "..."])


def _events() -> tuple[dict[str, list[str]], list[list[str]]]:
    """The words of each slot, and the shapes of each side: negative ones, positive ones."""
    name = "seq_classification.events.txt"
    events: list[list[str]] = [[], []]
    for line in (Path(__file__).parent / name).read_text(encoding="utf-8").splitlines():
        side, _, shape = line.partition(" ")
        for number, sides in enumerate((("neg", "both"), ("pos", "both"))):
            if side in sides:
                events[number].append(shape)
    slots = words(name)
    for side, adjectives in (("neg", "badadj"), ("pos", "goodadj")):
        more = words("seq_classification.words.txt")
        slots[adjectives] += [word for kind in ("any", *KINDS) for word in more[f"{side}-{kind}"] if " " not in word]
    return slots, events


def train(out: Path) -> None:
    """Train the model, score it on the held-out sentences, and write it with its card into `out`."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    grammar = Grammar(random.Random(SEED))
    out.mkdir(parents=True, exist_ok=True)
    texts = (grammar.example()[0] for _ in range(40_000))
    with wordpiece(texts, 5000, lowercase=True) as vocabulary:
        tokenizer = BertTokenizerFast(str(vocabulary), do_lower_case=True, model_max_length=256)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=384,
        max_position_embeddings=256, id2label=dict(enumerate(LABELS)), label2id={n: i for i, n in enumerate(LABELS)},
    )  # fmt: skip
    model = BertForSequenceClassification(config)

    def batch(random_: random.Random) -> dict[str, torch.Tensor]:
        grammar.random = random_
        texts, labels = zip(*(grammar.example() for _ in range(BATCH)), strict=True)
        encoded = tokenizer(list(texts), padding=True, return_tensors="pt")
        # Words are hidden now and then, so that no single one decides and unknown ones are passed over.
        hide = (torch.rand(encoded["input_ids"].shape) < 0.05) & (encoded["input_ids"] > 4)
        encoded["input_ids"][hide] = tokenizer.unk_token_id
        return {**encoded, "labels": torch.tensor(labels)}

    run(model, batch, STEPS, 6e-4)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    right, total = score(model, tokenizer)
    card(out, "seq_classification", "text-classification", "bert", CARD.format(score=right / total, total=total))


def score(model: Any, tokenizer: Any) -> tuple[int, int]:
    """Held-out sentences that the model gets right, of how many."""
    rows = heldout("seq_classification")
    with torch.inference_mode():
        found = [int(model(**tokenizer(text, return_tensors="pt")).logits.argmax()) for text, _ in rows]
    return sum(LABELS[index] == label for index, (_, label) in zip(found, rows, strict=True)), len(rows)


CARD = """A tiny BERT (2 layers, 128 wide) that tells positive from negative plain English sentences about food, films,
places, people and things.

- **Accuracy {score:.1%}** on {total} held-out sentences, written by hand in other words than the training text
  (`pipeline/starters/training/heldout/seq_classification.json`).
- It knows some 700 words and phrases of praise and complaint, negation, and that what follows a "but" counts.
- It has no third label: a sentence that says neither is put on one side. Irony, comparison of two products, and words
  that it never saw are beyond it."""

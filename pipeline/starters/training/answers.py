"""Generated paragraphs with a question and its answer's place in the text."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from pathlib import Path

from mar_pipeline.starters.training.fillers import Fillers
from mar_pipeline.starters.training.words import Person, expand, read_words

_HERE = Path(__file__).parent
_SLOT = re.compile(r"\{(\w+)(?::(\w+))?\}")
_ADVERBS = (
    "quickly",
    "carefully",
    "finally",
    "once",
    "also",
    "quietly",
    "proudly",
    "often",
    "already",
    "secretly",
    "then",
    "just",
)
_BEFORE = ("later", "then", "after that", "luckily", "one day", "in the end", "at last", "of course", "soon", "once")


@dataclass(frozen=True)
class Example:
    """A question, its context, the answer's characters [start, end) in it, and every slot's span and kind."""

    question: str
    context: str
    start: int
    end: int
    spans: tuple[tuple[int, int, str], ...]
    evidence: tuple[int, int]

    @property
    def answer(self) -> str:
        """The answer's text."""
        return self.context[self.start : self.end]


@dataclass
class Group:
    """Statements of one kind with the questions that may be asked about their slots."""

    verbs: list[tuple[list[str], str]] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)
    questions: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Fact:
    """One statement about a person: pieces of text with their slots, and what each slot says."""

    group: Group
    person: Person
    pieces: list[tuple[str, str]]
    slots: dict[str, str]
    classes: dict[str, str]
    verb: list[str]
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    sentence: tuple[int, int] = (0, 0)


def read_groups(path: Path) -> list[Group]:
    """The groups of a file of shapes: blocks with V, S and Q lines."""
    groups: list[Group] = []
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        group = Group()
        for line in block.splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "V":
                forms, _, noun = rest.partition(":")
                group.verbs.append((forms.split("/"), noun.strip()))
            elif kind == "S":
                group.statements.append(rest)
            elif kind == "Q":
                slot, _, text = rest.partition(" ")
                group.questions.append((slot, text))
        if group.statements:
            groups.append(group)
    return groups


class Writer:
    """Writes examples; the same seed gives the same ones."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.fill = Fillers(read_words(_HERE / "question_answering.words.txt"), self.rng)
        self.groups = read_groups(_HERE / "question_answering.shapes.txt")
        self.weights = [5.0 if group.verbs else 1.0 for group in self.groups]

    def fact(self, person: Person, group: Group, verb: tuple[list[str], str] | None = None) -> Fact:
        """A statement of a group about a person, with fresh fillers."""
        rng = self.rng
        forms: list[str] = []
        text = expand(rng.choice(group.statements), rng)
        if group.verbs:
            forms, noun = verb or rng.choice(group.verbs)
            if forms[0] == "@nonce":
                base = self.fill.nonce().lower()
                past = base + ("d" if base.endswith("e") else "ed")
                forms = [base, base + "s", past, past, base.rstrip("e") + "ing"]
            text = _inflect(text, forms).replace("{obj}", f"{{obj:{noun}}}")
        text = text.replace("adv ", rng.choice(_ADVERBS) + " ") if "adv " in text else text
        fact = Fact(group, person, [], {}, {}, forms)
        at = 0
        for found in _SLOT.finditer(text):
            fact.pieces.append((text[at : found.start()], ""))
            name, kind = found.group(1), found.group(2) or found.group(1)
            if name in ("S", "P"):
                fact.pieces.append(("", name))
            elif name in ("he", "his", "him"):
                fact.pieces.append((getattr(person, name), ""))
            elif name == "pre":
                fact.pieces.append((rng.choice(_BEFORE), ""))
            else:
                filler = self.fill.draw(kind)
                filler = filler.replace("{he}", person.he).replace("{his}", person.his)
                before, _, answer = filler.rpartition("|")
                fact.pieces += [(before, ""), (answer, name)]
                fact.slots[name] = before + answer
                fact.classes[name] = kind
            at = found.end()
        fact.pieces.append((text[at:], ""))
        return fact

    def question(self, fact: Fact) -> tuple[str, str] | None:
        """A question about one of a statement's slots and that slot; None where none fits."""
        rng = self.rng
        has_person = any(slot in ("S", "P") for _, slot in fact.pieces)
        slots = sorted({slot for slot, _ in fact.group.questions if slot in fact.slots or (slot == "S" and has_person)})
        if not slots:
            return None
        slot = rng.choice(slots)
        shapes = [text for name, text in fact.group.questions if name == slot]
        for _ in range(8):
            text = expand(rng.choice(shapes), rng)
            text = _inflect(text, fact.verb) if fact.verb else text
            names = [found.group(1) for found in _SLOT.finditer(text)]
            known = all(n in fact.slots or n in ("he", "his", "him") or (n == "S" and has_person) for n in names)
            if known and slot not in names:
                asked = self._asked(text, fact)
                if len(asked.split()) <= 4 or rng.random() < 0.9 or slot == "S":
                    return asked, slot
        return None

    def _asked(self, text: str, fact: Fact) -> str:
        def put(found: re.Match[str]) -> str:
            name = found.group(1)
            if name == "S":
                return self.rng.choice((fact.person.short, fact.person.short, fact.person.full))
            if name in ("he", "his", "him"):
                return str(getattr(fact.person, name))
            filler = fact.slots[name]
            if fact.classes[name] == "noun" and not re.search(
                r"(the|'s|[Ww]hich|[Ww]hose)( \{\w+\})? $", text[: found.start()]
            ):
                return f"the {filler}"
            if self.rng.random() < 0.5:
                filler = re.sub(r"^an? ", "the ", filler)
            if self.rng.random() < 0.15 and len(filler.split()) == 3 and filler.startswith("the "):
                filler = f"the {filler.split()[2]}"
            return filler

        text = re.sub(r"the the ", "the ", _SLOT.sub(put, text))
        text = re.sub(r"the (an? )", "the ", text)
        return text[0].upper() + text[1:]

    def example(self, longest: int = 6) -> Example:
        """One paragraph of at most `longest` statements with a question about one of them."""
        while True:
            made = self._example(longest)
            if made is not None:
                return made

    def _example(self, longest: int) -> Example | None:
        rng = self.rng
        count = rng.randint(1, longest)
        people = [self.fill.person() for _ in range(min(count, rng.choice((1, 1, 2, 2, 3))))]
        if len({person.short for person in people}) < len(people):
            return None
        facts: list[Fact] = []
        for at in range(count):
            person = people[at * len(people) // count]
            earlier = [fact for fact in facts if fact.person is not person]
            if earlier and rng.random() < 0.5:
                twin = rng.choice(earlier)
                verb = next((row for row in twin.group.verbs if twin.verb and row[0] == twin.verb), None)
                facts.append(self.fact(person, twin.group, verb if rng.random() < 0.7 else None))
            else:
                facts.append(self.fact(person, rng.choices(self.groups, self.weights)[0]))
        if rng.random() < 0.25:
            rng.shuffle(facts)
        fillers = [text for fact in facts for text in fact.slots.values()]
        if len(set(fillers)) < len(fillers):
            return None
        context, spans = self._tell(facts)
        fact = rng.choice(facts)
        asked = self.question(fact)
        if asked is None:
            return None
        slot = "S" if asked[1] == "S" else asked[1]
        if slot not in fact.spans or (slot == "S" and fact.spans[slot] == (0, 0)):
            return None
        start, end = fact.spans[slot]
        return Example(asked[0], context, start, end, tuple(spans), fact.sentence)

    def _tell(self, facts: list[Fact]) -> tuple[str, list[tuple[int, int, str]]]:
        rng = self.rng
        text = ""
        spans: list[tuple[int, int, str]] = []
        named: dict[int, tuple[int, int]] = {}
        last: Person | None = None
        for fact in facts:
            pieces = list(fact.pieces)
            joined = False
            first_slot = next((i for i, piece in enumerate(pieces) if piece != ("", "")), 0)
            same = last is fact.person and id(fact.person) in named
            if same and pieces[first_slot] == ("", "S") and text.endswith(".") and rng.random() < 0.3:
                text = text[:-1] + rng.choice((" and", ", and", " but"))
                pieces[first_slot] = ("", "gap" if rng.random() < 0.6 else "S")
                joined = True
            begin = len(text) + (1 if text else 0)
            sentence = ""
            marks: list[tuple[int, int, str]] = []
            mentioned = False
            for word, slot in pieces:
                if slot == "gap":
                    marks.append((-1, -1, "S"))
                    mentioned = True
                    continue
                if slot in ("S", "P"):
                    pronoun = (same and rng.random() < 0.75) or mentioned
                    front = not sentence.strip()
                    if pronoun:
                        word = fact.person.his if slot == "P" else fact.person.he
                        if slot == "S" and not front and not sentence.rstrip().endswith((",", "who")):
                            word = fact.person.him
                        marks.append((-1, -1, "S"))
                    else:
                        word = fact.person.short if id(fact.person) in named else fact.person.full
                        at = len(sentence)
                        marks.append((at, at + len(word), "S"))
                        word += "'s" if slot == "P" else ""
                    mentioned = True
                    sentence += word
                elif slot:
                    marks.append((len(sentence), len(sentence) + len(word), slot))
                    sentence += word
                else:
                    sentence += word
            lead = len(sentence) - len(sentence.lstrip())
            sentence = sentence.lstrip()
            if not joined and sentence:
                sentence = sentence[0].upper() + sentence[1:]
            text += (" " if text else "") + sentence
            for a, b, slot in marks:
                if a < 0:
                    fact.spans[slot] = named.get(id(fact.person), (0, 0))
                else:
                    fact.spans[slot] = (begin + a - lead, begin + b - lead)
                    spans.append((*fact.spans[slot], fact.classes.get(slot, "S")))
                    if slot == "S":
                        named[id(fact.person)] = fact.spans[slot]
            fact.sentence = (begin, len(text))
            if any(slot == "S" for *_, slot in marks):
                last = fact.person
        return text, spans


def _inflect(text: str, forms: list[str]) -> str:
    for mark, form in zip("bspng", forms, strict=True):
        text = text.replace(f"@{mark}", form)
    return text

"""Words for the slots of generated sentences: people, things, places, times and prices, made-up ones among them."""

from __future__ import annotations

import random

from .words import Person, article

MADE_UP = 0.2
"""Share of nouns and names that are made up, so that a model learns to match words instead of knowing them."""

_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


class Fillers:
    """Draws a filler for a class of slot; what stands before a bar in a filler is no part of an answer."""

    def __init__(self, words: dict[str, tuple[str, ...]], rng: random.Random) -> None:
        self.words = words
        self.rng = rng

    def pick(self, name: str) -> str:
        """One word of a class."""
        return self.rng.choice(self.words[name])

    def nonce(self) -> str:
        """A made-up name of two to four syllables, with a capital."""
        parts = [self.pick("syllable") for _ in range(self.rng.choice((1, 2, 2, 3)))]
        return ("".join(parts) + self.pick("ending")).capitalize()

    def person(self) -> Person:
        """A person: mostly a first name, at times with a surname or a title, or a role such as "my aunt"."""
        rng = self.rng
        he = rng.choice(("he", "she"))
        male = he == "he"
        roll = rng.random()
        if roll < 0.14:
            role = self.pick("malerole" if male else "femalerole")
            return Person(role, role, he)
        first = self.nonce() if rng.random() < 0.35 else self.pick("male" if male else "female")
        if roll < 0.24:
            title = rng.choice(("Mr", "Mr.", "Dr", "Uncle") if male else ("Mrs", "Ms", "Dr", "Aunt", "Mrs."))
            name = f"{title} {first if title in ('Uncle', 'Aunt') else self.surname()}"
            return Person(name, name, he)
        if roll < 0.4:
            return Person(f"{first} {self.surname()}", first, he)
        return Person(first, first, he)

    def surname(self) -> str:
        """A family name."""
        return self.nonce() if self.rng.random() < 0.4 else self.pick("surname")

    def noun(self, name: str = "thing") -> str:
        """A noun, at times with an adjective or a second noun before it."""
        rng = self.rng
        noun = self.nonce().lower() if rng.random() < MADE_UP else self.pick(name)
        roll = rng.random()
        if roll < 0.22:
            return f"{self.pick('adj')} {noun}"
        if roll < 0.28:
            return f"{self.pick('colour')} {noun}"
        if roll < 0.33:
            return f"{self.pick('thing')} {noun}"
        return noun

    def town(self) -> str:
        """A town's name."""
        return self.nonce() if self.rng.random() < 0.3 else self.pick("town")

    def number(self) -> str:
        """A number in words or digits."""
        roll = self.rng.random()
        if roll < 0.55:
            return self.pick("number")
        if roll < 0.7:
            return f"{self.rng.choice(_TENS)}-{self.rng.choice(self.words['number'][:8])}"
        return str(self.rng.choice((self.rng.randint(2, 30), self.rng.randint(31, 999))))

    def street(self) -> str:
        """A street's name."""
        name = self.nonce() if self.rng.random() < 0.4 else self.pick("building").title()
        return f"{name} {self.rng.choice(('Street', 'Road', 'Square', 'Lane', 'Avenue'))}"

    def place(self) -> str:
        """A building with its article, at times with its town."""
        building = self.noun("building")
        roll = self.rng.random()
        if roll < 0.12:
            return self.town()
        text = article(building) if roll < 0.6 else f"the {building}"
        roll = self.rng.random()
        if roll < 0.25:
            return f"{text} in {self.town()}"
        if roll < 0.32:
            return f"{text} {self.rng.choice(('near', 'by', 'behind', 'next to'))} the {self.pick('spot')}"
        return text

    def home(self) -> str:
        """Where someone lives: a town, a country, a village."""
        roll = self.rng.random()
        if roll < 0.4:
            return self.town()
        if roll < 0.5:
            return self.pick("country")
        if roll < 0.58:
            return f"{self.town()}, {self.pick('country')}"
        if roll < 0.7:
            return f"{article(self.pick('adj') + ' ' + self.pick('building'))} in {self.town()}"
        if roll < 0.8:
            kind = self.rng.choice(("village", "town", "house", "flat", "farm"))
            return f"{article(self.pick('adj') + ' ' + kind)} {self.rng.choice(('near', 'by'))} the {self.pick('spot')}"
        return self.place()

    def where(self) -> str:
        """A place with its preposition before a bar."""
        roll = self.rng.random()
        if roll < 0.2:
            return f"in |{self.town()}"
        if roll < 0.3:
            return f"{self.rng.choice(('in', 'at', 'near'))} |{self.place()}"
        if roll < 0.55:
            thing = self.noun()
            return f"{self.rng.choice(('on', 'under', 'behind', 'in', 'next to', 'near', 'on top of'))} |the {thing}"
        return f"{self.rng.choice(('in', 'at', 'in', 'at', 'near', 'behind'))} |the {self.noun('spot')}"

    def price(self) -> str:
        """An amount of money."""
        roll = self.rng.random()
        if roll < 0.15:
            return f"{self.rng.choice('$€£')}{self.rng.randint(1, 400)}"
        if roll < 0.22:
            return f"{self.rng.choice('$€£')}{self.rng.randint(1, 40)}.{self.rng.choice(('50', '20', '99', '75'))}"
        return f"{self.number()} {self.pick('currency')}"

    def date(self) -> str:
        """A day of the year."""
        rng, month = self.rng, self.pick("month")
        day = rng.randint(1, 30)
        form = rng.choice(
            (f"{day} {month}", f"{month} {day}", f"the {rng.choice(('first', 'third', 'tenth'))} of {month}")
        )
        return form if rng.random() < 0.8 else f"{day} {month} {rng.randint(1850, 2025)}"

    def who(self) -> str:
        """Another person's name or role."""
        return self.person().full

    def draw(self, name: str) -> str:
        """A filler for any class, "prefix |answer" where a preposition belongs to the slot."""
        rng = self.rng
        match name:
            case "athing":
                return article(self.noun()) if rng.random() < 0.8 else f"{self.number()} {self.pick('countable')}"
            case "thething" | "barething":
                return f"the {self.noun()}"
            case "noun":
                return self.nonce().lower() if rng.random() < MADE_UP else self.pick("thing")
            case "ananimal":
                return article(self.noun("animal"))
            case "theanimal":
                return f"the {self.noun('animal')}"
            case "food":
                food = self.nonce().lower() if rng.random() < MADE_UP else self.pick("food")
                with_what = f"{food} {rng.choice(('with', 'and'))} {self.pick('food')}"
                return rng.choice((food, food, f"{self.pick('adj')} {food}", with_what))
            case "plant":
                tree = f"{rng.choice(('apple', 'pear', 'cherry', 'oak', 'lemon', 'plum'))} tree"
                flowers = rng.choice(("roses", "tulips", "flowers", "strawberries", "tomatoes", "beans", "carrots"))
                return rng.choice((article(tree), f"{self.number()} {flowers}", flowers))
            case "awork":
                work = rng.choice(("book", "poem", "letter", "story", "novel", "song", "play", "report", "article"))
                about = (
                    f"{work} about {rng.choice((self.town(), self.pick('animal') + 's', 'the ' + self.pick('spot')))}"
                )
                return article(rng.choice((work, about, f"{self.pick('adj')} {work}")))
            case "event":
                kind = self.noun() if rng.random() < 0.15 else ""
                word = rng.choice(
                    "race match concert game show party meeting lesson play wedding festival trip film "
                    "competition contest final exam class tournament exhibition course dance".split()
                )
                return f"the {kind or rng.choice((self.pick('adj'), self.town(), 'school', 'chess', 'cooking', ''))} {word}".replace(
                    "  ", " "
                )
            case "place":
                return self.place()
            case "theplace":
                return rng.choice(
                    (
                        f"the {self.noun('building')}",
                        f"the {self.noun('spot')}",
                        f"the {self.town()} {self.pick('building')}",
                    )
                )
            case "inthe":
                return f"{rng.choice(('in', 'at', 'on'))} |the {self.noun(rng.choice(('spot', 'building')))}"
            case "where":
                return self.where()
            case "loc":
                return rng.choice((f"in |{self.street()}", f"on |{self.street()}", self.where(), f"in |{self.town()}"))
            case "home":
                return self.home()
            case "dest":
                return rng.choice((self.home(), f"the {self.noun('spot')}", f"the {self.noun('building')}"))
            case "inthe2":
                return f"the {self.noun('spot' if rng.random() < 0.7 else 'building')}"
            case "excuse":
                subject = rng.choice((f"the {self.noun()}", self.who(), "it", "{he}", f"the {self.pick('animal')}"))
                state = rng.choice(
                    (self.pick("adj"), "ill", "late", "raining", "tired", "in a hurry", "closed", "hungry")
                )
                return f"{subject} was {rng.choice(('', 'very ', 'too '))}{state}"
            case "called":
                first = self.nonce() if rng.random() < 0.35 else self.pick(rng.choice(("male", "female")))
                return first if rng.random() < 0.7 else f"{first} {self.surname()}"
            case "company":
                return self.nonce() if rng.random() < 0.4 else self.pick("company")
            case "makers":
                one, other = (self.draw("company") if rng.random() < 0.5 else self.who() for _ in range(2))
                return one if rng.random() < 0.6 else f"{one} and {other}"
            case "year":
                return str(rng.randint(1700, 2030))
            case "duration":
                unit = rng.choice(("hours", "minutes", "days", "weeks", "months", "years"))
                return rng.choice((f"{self.number()} {unit}", f"{self.number()} {unit}", "an hour", "half an hour"))
            case "aprofession":
                job = self.nonce().lower() if rng.random() < 0.08 else self.pick("profession")
                return article(
                    job
                    if rng.random() < 0.75
                    else f"{rng.choice(('young', 'retired', 'famous', 'good', 'poor'))} {job}"
                )
            case "nonce":
                return (
                    self.nonce()
                    if rng.random() < 0.6
                    else rng.choice(("Rex", "Bella", "Max", "Luna", "Daisy", "Rocky"))
                )
            case "game":
                return rng.choice(
                    "football|chess|tennis|the piano|the guitar|the violin|basketball|cards|hockey|the flute|the drums".split(
                        "|"
                    )
                )
            case "subject":
                return rng.choice(
                    (
                        self.pick("language"),
                        rng.choice("maths|history|music|biology|physics|art|law|medicine|geography".split("|")),
                    )
                )
            case "likable":
                return rng.choice(
                    (self.pick("activity"), self.pick("animal") + "s", self.pick("food"), f"the {self.pick('spot')}")
                )
            case "material":
                return rng.choice(
                    "wood|stone|glass|brick|gold|paper|steel|clay|wool|leather|silver|old newspapers|red bricks|cotton|iron|plastic".split(
                        "|"
                    )
                )
            case "means":
                return rng.choice("train|bus|bike|car|boat|plane|tram|ship|taxi|bicycle|ferry|underground".split("|"))
            case "platform":
                return rng.choice(
                    (f"platform {rng.randint(1, 20)}", "the harbour", "the main station", f"{self.street()}")
                )
            case "prize":
                return rng.choice(
                    (
                        "a gold medal",
                        "a silver cup",
                        "the first prize",
                        "a trip to Rome",
                        f"{self.price()}",
                        article(self.noun()),
                    )
                )
            case "dayplural":
                return f"on |{self.pick('day')}s"
            case "countable2":
                return f"{self.number()} {self.pick('countable')}"
            case "date" | "who" | "price" | "town" | "number":
                return str(getattr(self, name)())
            case "hour" if rng.random() < 0.15:
                return rng.choice(
                    (
                        f"{rng.randint(1, 12)} {rng.choice(('a.m.', 'p.m.', 'am', 'pm'))}",
                        f"{rng.randint(5, 23)}:{rng.choice(('00', '20', '45', '10'))}",
                    )
                )
            case "animal" | "countable" if rng.random() < MADE_UP:
                return self.nonce().lower() + "s"
            case _:
                return self.pick(name)

"""Generated stories and descriptions of three to eight sentences that keep to one scene and one person."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from pathlib import Path

from mar_pipeline.starters.training.words import expand

_HERE = Path(__file__).parent
_SLOT = re.compile(r"\{(\w+)\}")
_HE = "Tom Paul David Peter Omar Ben Marco Ivan Leo Hugo Karl Jonas Felix Daniel Henry George Simon Adam Luca Jack James John Sam Max".split()
_SHE = "Anna Maria Nora Lena Sara Emma Julia Mia Eva Clara Rosa Lucy Helen Alice Grace Nina Ida Kate Mary Jane Laura Sophie Ella Ruth".split()
HEROES = re.compile(rf"\b({'|'.join(_HE + _SHE)})\b")
"""The names that a story may tell of."""
_LEADS = ("One day", "In the morning", "Yesterday", "In the evening", "On Sunday", "Last week", "One morning", "After lunch",
          "At night", "Early in the morning", "Last summer", "That day", "At five o'clock", "In spring", "On Monday")  # fmt: skip
_JOINS = ("Then", "After that", "A little later", "Suddenly", "Later", "Of course", "Soon")


@dataclass
class Scene:
    """What is told of one place: words for its slots, first, middle and last sentences."""

    words: dict[str, list[str]] = field(default_factory=dict)
    parts: dict[str, list[str]] = field(default_factory=lambda: {"O": [], "M": [], "E": []})


def read_scenes(path: Path) -> list[Scene]:
    """The scenes of a file of shapes: blocks of W, O, M and E lines."""
    scenes: list[Scene] = []
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        scene = Scene()
        for line in block.splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "W":
                name, _, fillers = rest.partition(":")
                scene.words[name] = [word.strip() for word in fillers.split(",")]
            elif kind in scene.parts:
                scene.parts[kind].append(rest)
        if scene.parts["O"]:
            scenes.append(scene)
    return scenes


class Teller:
    """Tells stories; the same seed tells the same ones."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.scenes = read_scenes(_HERE / "text_generation.shapes.txt")

    def story(self) -> str:
        """One story: an opening, two to six middles in their order, an ending."""
        rng = self.rng
        scene = rng.choice(self.scenes)
        opening = rng.choice(scene.parts["O"])
        she = rng.random() < 0.5
        if (
            opening.startswith(("She ", "He ", "The old man", "In the morning the old man"))
            or " the old man" in opening
        ):
            she = opening.startswith("She ")
        name = rng.choice(_SHE if she else _HE)
        if rng.random() < 0.3:
            name = "she" if she else "he"
        words = {slot: rng.choice(fillers) for slot, fillers in scene.words.items()}
        words |= {
            "N": name,
            "he": "she" if she else "he",
            "his": "her" if she else "his",
            "him": "her" if she else "him",
            "him2": "it",
        }
        if words.get("being"):
            she = words["being"].split()[-1] in ("woman", "girl", "princess", "queen")
            words |= {"he": "she" if she else "he", "his": "her" if she else "his", "him": "her" if she else "him"}
        middles = scene.parts["M"]
        kept = sorted(rng.sample(range(len(middles)), rng.randint(2, min(6, len(middles)))))
        shapes = [opening, *(middles[at] for at in kept), rng.choice(scene.parts["E"])]
        if rng.random() < 0.15:
            shapes = shapes[1:]
        sentences: list[str] = []
        for number, shape in enumerate(shapes):
            sentence = self._said(shape, words)
            if number == 0 and rng.random() < 0.3 and shape.startswith(("{N}", "The ", "A ")):
                lead = rng.choice(_LEADS)
                sentence = f"{lead}{rng.choice((',', ''))} {sentence if sentence.startswith(name) else sentence[0].lower() + sentence[1:]}"
            elif number and shape.startswith("{He} ") and rng.random() < 0.15:
                sentence = f"{rng.choice(_JOINS)} {sentence[0].lower()}{sentence[1:]}"
            sentences.append(sentence)
        return " ".join(sentences)

    def _said(self, shape: str, words: dict[str, str]) -> str:
        def put(found: re.Match[str]) -> str:
            slot = found.group(1)
            filler = words.get(slot) or words[slot.lower()]
            if slot.lower() in ("helper", "reader", "boat"):
                words[slot.lower()] = re.sub(r"^an? ", "the ", filler)
            if slot in words:
                return filler
            return filler[0].upper() + filler[1:]

        text = expand(shape, self.rng)
        while _SLOT.search(text):
            text = _SLOT.sub(put, text)
        return text[0].upper() + text[1:]

"""What happens in the procedural dialogues: words, turns, and every valid summary's parts.

A table and its row type, and nothing that draws from it: `summarization` beside it does. The texts
are this project's own.
"""

from __future__ import annotations

from dataclasses import dataclass

PERSONS = ("#Person1#", "#Person2#")

DAYS = ("on Monday", "on Tuesday", "on Friday", "on Sunday", "tonight", "tomorrow")
PLACES = ("the station", "the park", "the library", "the bridge", "the school", "the bank")
ACTIVITIES = (
    "play tennis", "watch a film", "have dinner", "go fishing", "visit the museum",
    "go swimming", "study maths", "see a concert", "cook pasta", "ride bikes",
)  # fmt: skip
CHORES = (
    "fix the printer", "water the plants", "feed the cat", "clean the kitchen",
    "sign the form", "send the report", "book the hotel", "call the doctor",
    "move the desk", "buy the tickets",
)  # fmt: skip
OBJECTS = (
    "bike", "laptop", "camera", "helmet", "tent", "guitar", "dictionary", "ladder", "car", "coat",
)  # fmt: skip
REASONS = (  # said by the person, told of the person
    ("I have to work", "has to work"),
    ("I am ill", "is ill"),
    ("I have an exam", "has an exam"),
    ("I am too tired", "is too tired"),
    ("I have no time", "has no time"),
    ("I have a meeting", "has a meeting"),
)
USES = (  # why the other cannot lend it
    ("I need it myself", "needs it"),
    ("It is broken", "says it is broken"),
    ("I lost it", "lost it"),
    ("I sold it", "sold it"),
)
OPENERS = (  # the first speaker's turn; the person asked opens in half of the dialogues
    "Hi, how are you?",
    "Hello! What's up?",
    "Good morning!",
    "Nice to see you.",
)
GREETINGS = ("Hi!", "Hello.", "Excuse me.", "")


@dataclass(frozen=True, slots=True)
class Scene:
    """{x} the matter, {d} the day, {p} the place, {r} / {told} the reason; {a} asks, {b} replies.

    A frame or a clause comes with its relative weight; every frame goes with every clause.
    """

    kind: str
    ending: str  # for the slot list: yes, no
    matters: tuple[str, ...]
    reasons: tuple[tuple[str, str], ...]
    asks: tuple[str, ...]
    replies: tuple[str, ...]
    closings: tuple[tuple[str, ...], ...]  # one of these dialogue ends: further turns
    frames: tuple[tuple[str, float], ...]
    clauses: tuple[tuple[str, float], ...]


NOTHING: tuple[tuple[str, str], ...] = (("", ""),)
MEET = (
    ("Where shall we meet?", "At {p}."),
    ("Great. Where?", "Let's meet at {p}."),
    ("At {p}?", "Fine."),
)
MEETING = (
    ("", 0.4),
    (" They will meet at {p}.", 0.3),
    (" They meet at {p}.", 0.2),
    (" The meeting point is {p}.", 0.1),
)
THANKS = (("Thank you.",), ("Thanks a lot!",), ("That's kind.",))
PITY = (("What a pity.",), ("Never mind.",), ("All right.",))
BECAUSE = ("because", "since", "as")

SCENES: tuple[Scene, ...] = (
    Scene(
        "invite",
        "yes",
        ACTIVITIES,
        NOTHING,
        ("Shall we {x} {d}?", "Do you want to {x} {d}?", "Would you like to {x} {d}?"),
        ("Yes, I'd love to.", "Good idea.", "Sure, why not?"),
        MEET,
        (
            ("{a} invites {b} to {x} {d} and {b} agrees.", 0.2),
            ("{a} asks {b} to {x} {d}. {b} agrees.", 0.12),
            ("{b} agrees to {x} with {a} {d}.", 0.12),
            ("{b} accepts {a}'s invitation to {x} {d}.", 0.1),
            ("{a} and {b} will {x} {d}.", 0.1),
            ("{b} and {a} will {x} {d}.", 0.06),
            ("{a} and {b} plan to {x} {d}.", 0.1),
            ("{b} and {a} plan to {x} {d}.", 0.05),
            ("{a} and {b} are going to {x} {d}.", 0.06),
            ("{a} will {x} with {b} {d}.", 0.05),
            ("{b} will {x} with {a} {d}.", 0.04),
        ),
        MEETING,
    ),
    Scene(
        "invite",
        "no",
        ACTIVITIES,
        REASONS,
        ("Shall we {x} {d}?", "Do you want to {x} {d}?", "Would you like to {x} {d}?"),
        ("Sorry, {r}.", "I can't. {r}.", "No, {r}."),
        PITY,
        (
            ("{a} invites {b} to {x} {d}, but {b} {told}.", 0.2),
            ("{a} wants to {x} with {b} {d}, but {b} {told}.", 0.12),
            *(("{b} can't {x} with {a} {d} " + w + " {b} {told}.", 0.1) for w in BECAUSE),
            *(("{b} refuses to {x} with {a} {d} " + w + " {b} {told}.", 0.06) for w in BECAUSE),
            ("{b} turns down {a}'s invitation to {x} {d}.", 0.12),
            ("{a} asks {b} to {x} {d}. {b} refuses.", 0.1),
        ),
        (("", 1.0),),
    ),
    Scene(
        "request",
        "yes",
        CHORES,
        NOTHING,
        ("Can you {x} {d}?", "Could you {x} {d}, please?", "Will you {x} {d} for me?"),
        ("Of course.", "No problem.", "Yes, I will."),
        THANKS,
        (
            ("{a} asks {b} to {x} {d} and {b} agrees.", 0.25),
            ("{a} wants {b} to {x} {d}. {b} agrees.", 0.15),
            ("{b} will {x} for {a} {d}.", 0.15),
            ("{b} agrees to {x} for {a} {d}.", 0.12),
            ("{b} promises {a} to {x} {d}.", 0.1),
            ("{b} is going to {x} {d}.", 0.08),
        ),
        (("", 0.6), (" {a} thanks {b}.", 0.25), (" {a} is grateful.", 0.15)),
    ),
    Scene(
        "request",
        "no",
        CHORES,
        REASONS,
        ("Can you {x} {d}?", "Could you {x} {d}, please?", "Will you {x} {d} for me?"),
        ("Sorry, {r}.", "I can't. {r}.", "No, {r}."),
        PITY,
        (
            ("{a} asks {b} to {x} {d}, but {b} {told}.", 0.2),
            ("{a} wants {b} to {x} {d}, but {b} {told}.", 0.15),
            *(("{b} can't {x} for {a} {d} " + w + " {b} {told}.", 0.11) for w in BECAUSE),
            *(("{b} refuses to {x} {d} " + w + " {b} {told}.", 0.07) for w in BECAUSE),
            ("{a} wants {b} to {x} {d}. {b} refuses.", 0.12),
        ),
        (("", 1.0),),
    ),
    Scene(
        "lend",
        "yes",
        OBJECTS,
        NOTHING,
        ("Can you lend me your {x}?", "May I borrow your {x}?", "I need your {x}."),
        ("Sure. I need it back {d}.", "Yes, if I get it back {d}.", "OK. Bring it back {d}."),
        THANKS,
        (
            ("{b} lends {a} a {x}.", 0.15),
            ("{a} borrows {b}'s {x}.", 0.25),
            ("{b} will lend {a} a {x}.", 0.15),
            ("{a} asks for {b}'s {x} and {b} agrees.", 0.2),
            ("{b} agrees to lend {a} a {x}.", 0.15),
        ),
        (
            (" {a} must return it {d}.", 0.4),
            (" {b} needs it back {d}.", 0.35),
            (" {a} will give it back {d}.", 0.25),
        ),
    ),
    Scene(
        "lend",
        "no",
        OBJECTS,
        USES,
        ("Can you lend me your {x} {d}?", "May I borrow your {x} {d}?", "I need your {x} {d}."),
        ("Sorry, {r}.", "No. {r}.", "I can't lend it. {r}."),
        PITY,
        (
            ("{a} wants to borrow {b}'s {x} {d}, but {b} {told}.", 0.35),
            ("{a} asks for {b}'s {x} {d}, but {b} {told}.", 0.25),
            ("{b} can't lend {a} the {x}. {b} {told}.", 0.2),
            ("{b} refuses to lend {a} the {x}.", 0.12),
            ("{a} can't borrow {b}'s {x} {d}.", 0.08),
        ),
        (("", 1.0),),
    ),
)

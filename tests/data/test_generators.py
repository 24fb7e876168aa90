"""The generators' laws: what they promise about references, patterns, answers and language."""

from __future__ import annotations

import itertools
import math
import random
import re
import statistics
from collections.abc import Callable
from datetime import date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skd.data.generators import arithmetic, cldr, scenes, summarization, translation
from skd.data.generators.example import Example, entropy, from_weighted

GENERATORS = {
    "translation": translation,
    "summarization": summarization,
    "arithmetic": arithmetic,
}
LISTING = ["translation", "summarization"]  # those that list all their references


@pytest.fixture(scope="module")
def examples() -> dict[str, list[Example]]:
    return {
        name: list(module.generate(1500, random.Random(3))) for name, module in GENERATORS.items()
    }


# ------------------------------------------------------------------ all three
@pytest.mark.parametrize("name", GENERATORS)
def test_the_seed_alone_decides_the_examples(name: str) -> None:
    module = GENERATORS[name]
    for draw in (module.generate, module.pretrain):
        assert list(draw(50, random.Random(1))) == list(draw(50, random.Random(1)))
        assert list(draw(50, random.Random(1))) != list(draw(50, random.Random(2)))


@pytest.mark.parametrize("name", GENERATORS)
def test_weights_sum_to_one_and_references_are_distinct(
    name: str, examples: dict[str, list[Example]]
) -> None:
    for example in examples[name]:
        assert math.fsum(example.weights) == pytest.approx(1.0)
        assert all(weight > 0 for weight in example.weights)
        assert len(set(example.references)) == len(example.references) == len(example.weights)
        assert example.target in example.references


@pytest.mark.parametrize("name", GENERATORS)
def test_every_reference_is_in_the_valid_set(name: str, examples: dict[str, list[Example]]) -> None:
    for example in examples[name][:300]:
        assert all(example.accepts(reference) for reference in example.references)


@pytest.mark.parametrize("name", GENERATORS)
@settings(max_examples=60)
@given(data=st.data())
def test_a_spoilt_reference_is_not_in_the_valid_set(name: str, data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 10_000))
    (example,) = GENERATORS[name].generate(1, random.Random(seed))
    at = data.draw(st.integers(0, len(example.target) - 1))
    spoilt = example.target[:at] + "~" + example.target[at + 1 :]
    assert not example.accepts(spoilt)
    assert not example.accepts(example.target + example.target)
    assert not example.accepts("")


@pytest.mark.parametrize("name", GENERATORS)
def test_texts_are_clean_and_no_slot_is_left_unfilled(
    name: str, examples: dict[str, list[Example]]
) -> None:
    pairs = list(GENERATORS[name].pretrain(500, random.Random(0)))
    texts = [t for e in examples[name] for t in (e.source, *e.references)]
    for text in texts + [text for pair in pairs for text in pair]:
        assert text == text.strip()
        assert not re.search(r"[{}]|  |\xa0|None|\bon on\b", text), text


@pytest.mark.parametrize("name", LISTING)
def test_the_target_is_drawn_by_weight(name: str) -> None:
    options = (("often", 8.0), ("seldom", 2.0))
    rng = random.Random(0)
    drawn = [from_weighted("x", options, rng).target for _ in range(2000)]
    assert drawn.count("often") / 2000 == pytest.approx(0.8, abs=0.03)


def test_equal_options_are_merged_into_one_reference() -> None:
    example = from_weighted("x", (("a", 1.0), ("b", 1.0), ("a", 2.0)), random.Random(0))
    assert dict(zip(example.references, example.weights, strict=True)) == {"a": 0.75, "b": 0.25}


@pytest.mark.parametrize(
    ("name", "fewest", "most", "nats"),
    [("translation", 2, 32, (2.2, 2.8)), ("summarization", 5, 44, (2.2, 3.0))],
)
def test_references_are_several_and_uncertain(
    name: str,
    fewest: int,
    most: int,
    nats: tuple[float, float],
    examples: dict[str, list[Example]],
) -> None:
    counts = [len(example.references) for example in examples[name]]
    assert fewest <= min(counts)
    assert max(counts) <= most
    mean = statistics.fmean(entropy(example.weights) for example in examples[name])
    assert nats[0] < mean < nats[1]


@pytest.mark.parametrize("name", GENERATORS)
def test_the_base_corpus_never_shows_the_tasks_own_outputs(name: str) -> None:
    module = GENERATORS[name]
    for source, target in module.pretrain(300, random.Random(5)):
        assert source
        assert "####" not in target
    if name == "arithmetic":
        return
    # the same random stream gives the same latent states, hence the same sources
    base = dict(module.pretrain(1, random.Random(9)))
    (example,) = module.generate(1, random.Random(9))
    assert base[example.source] not in example.references


# ----------------------------------------------------------------- arithmetic
# Each story's answer, worked out here from the numbers in its text alone.
ANSWERS: tuple[tuple[str, Callable[..., float]], ...] = (
    (r"has (\d+) \w+\. \w+ buys (\d+) more and gives away (\d+)\.", lambda a, b, c: a + b - c),
    (r"has (\d+) \w+\. \w+ loses (\d+) and then finds (\d+)\.", lambda a, b, c: a - b + c),
    (r"buys (\d+) bags of (\d+) \w+\. \w+ gives (\d+) to", lambda a, b, c: a * b - c),
    (r"has (\d+) \w+ and gets (\d+) boxes of (\d+) each", lambda a, b, c: a + b * c),
    (r"has (\d+) \w+\. \w+ has (\d+) more than \w+\. How", lambda a, b: a + a + b),
    (r"(\d+) \w+ and \w+ has (\d+)\. They share .* in (\d+) b", lambda a, b, c: (a + b) / c),
    (r"(\d+) .* buys (\d+), loses (\d+) and gets (\d+)", lambda a, b, c, d: a + b - c + d),
    (r"fills (\d+) bags with (\d+) \w+ and (\d+) .* (\d+)\.", lambda a, b, c, d: a * b + c * d),
    (r"(\d+) \w+, \w+ has (\d+) times .* sell (\d+)\.", lambda a, b, c: a + a * b - c),
)


def test_arithmetic_answers_agree_with_an_independent_reading(
    examples: dict[str, list[Example]],
) -> None:
    read = set()
    for example in examples["arithmetic"]:
        hits = [
            (index, compute(*map(int, found.groups())))
            for index, (pattern, compute) in enumerate(ANSWERS)
            if (found := re.search(pattern, example.source))
        ]
        assert len(hits) == 1, example.source
        read.add(hits[0][0])
        assert example.target.endswith(f"\n#### {hits[0][1]:g}")
    assert len(read) == len(arithmetic.STORIES)


def test_every_equation_in_a_solution_is_true(examples: dict[str, list[Example]]) -> None:
    seen = 0
    for example in examples["arithmetic"]:
        for left, sign, right, value in re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", example.target):
            results = {
                "+": int(left) + int(right),
                "-": int(left) - int(right),
                "*": int(left) * int(right),
                "/": int(left) / int(right),
            }
            assert results[sign] == int(value)
            seen += 1
    assert seen > 100


def test_the_solution_pattern_is_exactly_the_product_of_its_choices() -> None:
    (first, second) = arithmetic.Solved("*", 3, 4, 12), arithmetic.Solved("-", 12, 5, 7)
    pattern = re.compile(arithmetic._pattern((first, second)))
    every = {
        f"{opening}{one}{joiner}{two}{ending.format(v=7)}\n#### 7"
        for opening, one, joiner, two, ending in itertools.product(
            arithmetic.OPENINGS,
            [first.says(wording) for wording in arithmetic.WORDINGS["*"]],
            arithmetic.JOINERS,
            [second.says(wording) for wording in arithmetic.WORDINGS["-"]],
            arithmetic.ENDINGS,
        )
    }
    assert len(every) == arithmetic.solutions(2) == 288
    assert all(pattern.fullmatch(solution) for solution in every)
    drawn = {arithmetic._draw((first, second), random.Random(seed)) for seed in range(4000)}
    assert drawn == every
    for wrong in ("3 * 4 = 13; 12 - 5 = 7.\n#### 7", "3 * 4 = 12; 12 - 5 = 7.\n#### 8"):
        assert not pattern.fullmatch(wrong)
    assert not pattern.fullmatch("3 * 4 = 12.\n#### 7")


def test_one_solution_keeps_to_one_joiner(examples: dict[str, list[Example]]) -> None:
    for example in examples["arithmetic"]:
        if "; " in example.target:
            mixed = example.target[::-1].replace(" ;", " neht ,", 1)[::-1]
            three_steps = example.target.count("; ") == 2
            assert example.accepts(mixed) != three_steps


def test_three_steps_have_four_times_the_solutions_of_two() -> None:
    assert arithmetic.solutions(3) == 1152
    assert 5 < math.log(arithmetic.solutions(2)) < math.log(arithmetic.solutions(3)) < 7.5


# ---------------------------------------------------------------- translation
def test_sources_are_assamese_with_bengali_digits(examples: dict[str, list[Example]]) -> None:
    for example in examples["translation"]:
        assert not re.search("[0-9]", example.source), example.source
        assert not re.search("[A-Za-z]", re.sub(r"\b[AP]M\b", "", example.source)), example.source


def test_no_reference_leaks_the_source_language_or_a_pattern_key(
    examples: dict[str, list[Example]],
) -> None:
    for example in examples["translation"]:
        for reference in example.references:
            assert not re.search("[\u0980-\u09ff]", reference), reference
            assert not re.search(r"[a-z]+-[a-z]+", reference), reference


def test_every_listed_unit_has_an_assamese_pattern() -> None:
    for unit, (length, _) in translation.UNITS.items():
        pattern = cldr.unit(unit, length, "as")
        assert pattern.count("{}") == 1
        assert not re.search("[A-Za-z]", pattern), f"{unit} prints its key"


def test_dates_and_times_mean_the_same_in_both_formats() -> None:
    rng = random.Random(0)
    for _ in range(200):
        phrase = translation._date(rng)
        day = date.fromisoformat(phrase.canonical)
        month_first, day_first, _ = (text for text, _ in phrase.renderings)
        assert datetime.strptime(month_first, "%B %d, %Y").date() == day
        assert datetime.strptime(day_first, "%d %B %Y").date() == day
        assert [int(n) for n in re.findall(r"\d+", phrase.source)] == [day.day, day.year]

        clock = translation._time(rng)
        twelve, full, dotted = (text for text, _ in clock.renderings)
        assert datetime.strptime(twelve, "%I:%M %p").strftime("%H:%M") == full == clock.canonical
        assert dotted.replace(".", "").upper() == twelve


def test_weekdays_belong_to_their_dates() -> None:
    rng = random.Random(1)
    for _ in range(200):
        text = translation._weekday(rng).renderings[0][0]
        parsed = datetime.strptime(f"{text}, 2024", "%A, %B %d, %Y")
        assert parsed.strftime("%A") == text.split(",")[0]


@pytest.mark.parametrize(
    ("number", "text"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (11, "11th"), (12, "12th"), (13, "13th"), (21, "21st")],
)
def test_ordinals(number: int, text: str) -> None:
    assert translation._ordinal(number) == text


# -------------------------------------------------------------- summarization
def test_summaries_name_the_one_who_asks(examples: dict[str, list[Example]]) -> None:
    roles = set()
    for example in examples["summarization"]:
        lines = example.source.split("\n")
        assert 2 <= len(lines) <= 5
        speakers = [line.split(":")[0] for line in lines]
        assert all(a != b for a, b in itertools.pairwise(speakers))
        asks = 1 if lines[0].split(": ", 1)[1] in scenes.OPENERS else 0
        asker = speakers[asks]
        roles.add(asker)
        for reference in example.references:
            active = re.search(r"(#Person\d#) (?:asks|invites|wants|borrows)", reference)
            assert active is None or active[1] == asker
            passive = re.search(r"(#Person\d#) (?:agrees|refuses|lends|promises)", reference)
            assert passive is None or passive[1] != asker
    assert roles == set(scenes.PERSONS)


def test_summaries_say_nothing_that_the_dialogue_does_not(
    examples: dict[str, list[Example]],
) -> None:
    said = (*scenes.DAYS, *scenes.PLACES, *scenes.ACTIVITIES)
    for example in examples["summarization"]:
        for reference in example.references:
            for fact in said:
                assert fact not in reference or fact in example.source

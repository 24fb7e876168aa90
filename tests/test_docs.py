"""What README and docs say of the repository is so: its files, modules, commands and tables."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import pytest

from skd.engine.acceptance import ACCEPT
from skd.engine.settings import RULES
from skd.training.divergences import DIVERGENCES
from skd.training.methods import METHODS, Loss, Method, ResponseSource

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
PARAMETERS = [ROOT / "params.yaml", *sorted((ROOT / "profiles").glob("*.yaml"))]

# A word in capitals stands for a name: pipelines/stages/NAME.py.
PLACEHOLDER = re.compile(r"\b[A-Z]{2,}\b")
FOLDERS = "skd|pipelines|docs|tests|profiles|benchmarks|deploy"
# Deployments of prefect.yaml and of the flow, which are no files.
DEPLOYMENTS = {"skd/local", "skd/worker", "skd/kubernetes"}
PATH = re.compile(rf"(?<![\w/.-])(?:{FOLDERS})/[\w./-]*\w/?")
MODULE = re.compile(r"(?<![\w/.])(?:skd|pipelines)(?:\.\w+)+")
COMMAND = re.compile(r"python -m\s+([\w.]+)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
BACKTICKS = re.compile(r"`([^`]+)`")
INDENTED = re.compile(r"^ {4}.+$", re.MULTILINE)
TARGET = re.compile(r"\bmake\s+([a-z]+)\b")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def comments(file: Path) -> str:
    """The comments of a parameter file."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return "\n".join(line.partition("#")[2] for line in lines)


TEXTS = {name_of(page): page.read_text(encoding="utf-8") for page in PAGES}
COMMENTS = {name_of(file): comments(file) for file in PARAMETERS}


def quoted(text: str) -> list[str]:
    """What stands in backticks, but for blocks of code."""
    return BACKTICKS.findall(FENCED.sub("", text))


def section(title: str) -> str:
    """The text of README under a heading."""
    _, found, rest = TEXTS["README.md"].partition(f"## {title}")
    assert found, title
    return rest.partition("\n## ")[0]


# ------------------------------------------------------------------------ the tree
def tree() -> Iterator[tuple[str, str]]:
    """Path and description of each line of README's tree. A folder's path ends with a slash."""
    (block,) = re.findall(r"```\n(.*?)```", section("Tree"), re.DOTALL)
    folders: list[str] = []
    for line in block.splitlines():
        name, description = re.split(r"\s{2,}|(?<=\.py) ", line.strip(), maxsplit=1)
        depth = (len(line) - len(line.lstrip())) // 2
        folders = folders[:depth]
        yield "".join([*folders, name]), description
        folders.append(name)


def test_the_tree_names_every_module_once_and_no_other() -> None:
    named = [path for path, _ in tree() if path.startswith(("skd/", "pipelines/"))]
    modules = [path for package in ("skd", "pipelines") for path in (ROOT / package).rglob("*.py")]
    files = [name_of(path) for path in modules if path.name != "__init__.py"]
    packages = [f"{name_of(path.parent)}/" for path in modules if path.name == "__init__.py"]
    assert sorted(named) == sorted(files + packages)


def test_everything_else_in_the_tree_exists() -> None:
    missing = [
        name for path, _ in tree() for name in path.split(", ") if not (ROOT / name).exists()
    ]
    assert missing == []


def test_a_line_of_the_tree_is_one_short_phrase() -> None:
    for line in section("Tree").splitlines():
        assert len(line) <= 110, line
    for path, description in tree():
        assert not description.endswith("."), path


# --------------------------------------------------------------------- the methods
SOURCES = {
    ResponseSource.GROUND_TRUTH: "ground truth",
    ResponseSource.TEACHER: "the teacher's",
    ResponseSource.STUDENT: "the student's",
    ResponseSource.INTERLEAVED: "interleaved",
}
SHARES = {1.0: "", 0.5: "½ "}
ON = {"all": "", "kept": " on kept tokens", "replaced": " on replaced tokens"}
LABELS = {"emitted": "", "teacher_argmax": " to the teacher's argmax"}


def method_cells(name: str, method: Method) -> tuple[str, str, str, str]:
    """A method's row in README: its name, responses, losses and source."""
    losses = [loss_text(loss) for loss in method.losses]
    if len(losses) > 1:
        given = zip(method.sources, losses, strict=True)
        losses = [f"{SOURCES[source]}: {loss}" for source, loss in given]
    return f"`{name}`", response_text(method), "; ".join(losses), source_text(method)


def response_text(method: Method) -> str:
    first, *others = (SOURCES[source] for source in method.sources)
    if not others:
        return first
    (second,) = others
    if method.paired:
        return f"two per prompt: {first} and {second}"
    if method.start:
        return f"{second}; from {100 * method.start:g} % of the steps on {first}"
    odds = "a coin per prompt" if method.coin == 0.5 else f"{100 * method.coin:g} % of the prompts"
    return f"{odds}: {first} or {second}"


def loss_text(loss: Loss) -> str:
    parts = []
    if loss.divergence:
        divergence = f"`{loss.fixed}`" if loss.fixed else "divergence"
        parts.append(f"{SHARES[loss.divergence]}{divergence}{ON[loss.divergence_on]}")
    if loss.cross_entropy:
        where = LABELS[loss.label] + ON[loss.cross_entropy_on]
        parts.append(f"{SHARES[loss.cross_entropy]}cross-entropy{where}")
    return " + ".join(parts)


def source_text(method: Method) -> str:
    if method.arxiv is None:
        return {"paper": "the paper's baseline", "ours": "ours"}[method.origin]
    link = f"[{method.arxiv}](https://arxiv.org/abs/{method.arxiv})"
    return f"{link}, official code" if method.origin == "official code" else link


def test_the_table_of_methods_is_the_one_in_the_code() -> None:
    lines = re.findall(r"^\| (`.+) \|$", section("Methods"), re.MULTILINE)
    assert [tuple(line.split(" | ")) for line in lines] == [
        method_cells(name, method) for name, method in METHODS.items()
    ]


def test_every_divergence_and_acceptance_rule_is_named() -> None:
    for text in (section("Methods"), TEXTS["docs/losses.md"]):
        named = set(quoted(text))
        assert set(DIVERGENCES) <= named
        assert set(ACCEPT) <= named


def test_the_rules_table_has_their_defaults_and_ranges() -> None:
    rows = re.findall(r"^\| `(\w+)` \|(.+)\|$", TEXTS["docs/losses.md"], re.MULTILINE)
    shown = {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}
    for name, rule in RULES.items():
        _, default, limits, _ = shown[name]
        highest = f"{rule.lowest:g} to {rule.highest:g}"
        assert default == f"{rule.default:g}"
        assert limits == (f"from {rule.lowest:g}" if rule.highest == float("inf") else highest)


# ------------------------------------------------------- paths, modules and commands
def there_is(module: str) -> bool:
    """Whether a dotted name is a module or package, or a name that stands in one."""
    path = ROOT.joinpath(*module.split("."))
    if path.is_dir() or path.with_suffix(".py").exists():
        return True
    home = path.parent / "__init__.py" if path.parent.is_dir() else path.parent.with_suffix(".py")
    return home.exists() and re.search(rf"\b{path.name}\b", home.read_text()) is not None


def absent(text: str) -> list[str]:
    """What a text names by path or as a module, and what is not there."""
    paths = [path for path in PATH.findall(text) if not PLACEHOLDER.search(path)]
    paths = [path for path in paths if path not in DEPLOYMENTS]
    modules = [name for name in MODULE.findall(text) if not PLACEHOLDER.search(name)]
    commands = [name for name in COMMAND.findall(text) if name.split(".")[0] in FOLDERS.split("|")]
    return [path for path in paths if not (ROOT / path).exists()] + [
        name
        for name in (*modules, *commands)
        if not (PLACEHOLDER.search(name) or there_is(name.rstrip(".")))
    ]


@pytest.mark.parametrize("name", [*TEXTS, *COMMENTS])
def test_what_a_page_names_is_there(name) -> None:
    assert absent({**TEXTS, **COMMENTS}[name]) == []


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_to_files(name) -> None:
    folder = (ROOT / name).parent
    targets = [target.partition("#")[0] for target in LINK.findall(TEXTS[name])]
    local = [target for target in targets if target and "://" not in target]
    assert [target for target in local if not (folder / target).exists()] == []


@pytest.mark.parametrize("name", TEXTS)
def test_every_make_target_exists(name) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    commands = "\n".join([*quoted(TEXTS[name]), *INDENTED.findall(TEXTS[name])])
    assert set(TARGET.findall(commands)) <= targets


@pytest.mark.parametrize(
    "text",
    ["`skd/no_such.py`", "skd.training.no_such", "python -m pipelines.no_such", "docs/no_such.md"],
)
def test_a_name_of_nothing_is_found_out(text) -> None:
    assert absent(text) != []


def results(report: str) -> dict[str, list[str]]:
    """The table of a kept report: each model's cells, a second one a task where valid % is."""
    text = (ROOT / report).read_text(encoding="utf-8").partition("## Results")[2]
    rows = (cells(line) for line in text.partition("\n## ")[0].splitlines())
    return {row[0].strip("*` "): row[1:] for row in rows if len(row) > 3}


def test_the_readmes_figures_are_those_of_the_kept_report() -> None:
    """Each row of the table on its first screen, beside the report's row of the same model."""
    kept = results("reports/full-main/report.md")
    first = TEXTS["README.md"].partition("## What it found")[2].partition("| Command")[0]
    rows = [row for row in map(cells, first.splitlines()) if len(row) > 4]
    readme = {row[0].strip("*` "): row[1:] for row in rows}
    methods = {name for name in readme if name in METHODS}
    assert {"skd", "student_and_teacher", "seq_kd", "on_policy_hard"} <= methods
    for name in (*methods, "teacher"):
        words = [cell.rstrip("▲=▼? ") for cell in kept[name]]
        primary = [words[0], words[2], words[4], words[6]]  # the others are shares of valid outputs
        assert readme[name] == primary


def test_the_study_of_a_pretrained_pair_is_told_as_it_came_out() -> None:
    """Its table, and the order without which its summaries would say nothing."""
    kept = results("reports/smollm2/report.md")
    names = {
        "teacher, fine-tuned": "teacher",
        "student, healed alone": "untrained student, instruct start",
        "student, fine-tuned: where the methods start": "untrained student, SFT start",
    }
    section = TEXTS["docs/own-models.md"].partition("### What the study found")[2]
    rows = [
        row for row in map(cells, section.splitlines()) if len(row) == 3 and row[1][0].isdigit()
    ]
    told = {names.get(name := row[0].strip("`"), name): row[1:] for row in rows}
    assert told == {name: row[:2] for name, row in kept.items() if row[0][0].isdigit()}
    rouge = {name: [float(x) for x in row[1].split(" / ")] for name, row in told.items()}
    (teacher,), (healed,) = rouge.pop("teacher"), rouge.pop("untrained student, instruct start")
    assert all(healed < score < teacher for scores in rouge.values() for score in scores)
    start = rouge.pop("untrained student, SFT start")
    above = {m for m, s in rouge.items() if all(a > b for a, b in zip(s, start, strict=True))}
    assert above == {"seq_kd", "supervised_kd", "on_policy_kd", "skd"}


def found(heading: str) -> str:
    """A section of docs/findings.md in one line."""
    section = TEXTS["docs/findings.md"].partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return " ".join(section.split())


def test_what_is_said_of_the_other_rows_is_in_the_kept_report() -> None:
    said = found("The other rows")
    kept, main = (results(f"reports/{part}/report.md") for part in ("full-others", "full-main"))
    rows = kept.keys() - main.keys()
    assert len(rows) == 11
    verdicts = {row: [cell[-1] for cell in kept[row][:6:2]] for row in rows}
    assert not any("▲" in of_tasks for of_tasks in verdicts.values())
    undecided = {row for row, of_tasks in verdicts.items() if of_tasks == ["?"] * 3}
    assert undecided == {"skd_with_teacher", "ca_opd", "mixed_skd"}
    assert all(f"`{row}`" in said for row in undecided)
    assert {verdicts[row][0] for row in rows - undecided} == {"▼"}
    means = [kept[row][0].split()[0] for row in ("distillm2", "skd")]
    assert "`distillm2` with {} to {}".format(*means) in said
    assert verdicts["skd_instruct"] == ["▼", "?", "▼"]
    seq_kd = [[part["seq_kd"][column][-1] for column in (0, 2)] for part in (kept, main)]
    assert seq_kd == [["▼", "?"], ["?", "▲"]]
    assert "with {} to {}.".format(*(part["teacher"][2] for part in (kept, main))) in said


def test_what_is_said_of_settings_is_in_the_kept_tables() -> None:
    said = found("Settings of `skd`")
    runs: dict[tuple[str, str], list[float]] = {}
    with (ROOT / "reports/full-analyses/tables/sweeps.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["task"] == "translation":
                runs.setdefault((row["sweep"], row["value"]), []).append(float(row["metric"]))
    means = {key: f"{fmean(values):.1f}" for key, values in runs.items()}
    others = [means[key] for key in means if key[0] == "divergences" and key[1] != "forward_kl"]
    assert len(others) == 5
    low, high = (pick(others, key=float) for pick in (min, max))
    forward = means["divergences", "forward_kl"]
    assert f"forward KL {forward}, the five others {low} to {high}" in said
    few, many = means["low_data", "50"], means["low_data", "1000"]
    assert f"(translation, 50: {few}, 1,000: {many})" in said
    tables = (ROOT / "reports/full-analyses/details/analyses.md").read_text(encoding="utf-8")
    sweeps = tables.partition("## Students of other sizes")[0].split("## Sweep ")[1:]
    decided = {text.split("`")[1] for text in sweeps if re.search(r"[\d.] [▲▼] \|", text)}
    assert decided == {"divergences", "low_data", "rules", "teacher_temperature"}


def test_what_is_said_of_equal_budgets_is_in_the_kept_table() -> None:
    said = found("Equal budgets")
    with (ROOT / "reports/full-fairness/tables/fairness.csv").open(encoding="utf-8") as file:
        rows = {(r["view"], r["task"], r["method"]): r for r in csv.DictReader(file)}
    means = {key: f"{float(row['mean']):.1f}" for key, row in rows.items()}
    # A row's verdict is on the reference
    lost = {
        view: {key[1:] for key, row in rows.items() if key[0] == view and row["verdict"] == "worse"}
        for view in ("steps", "seconds", "tokens")
    }
    ours, imit = (
        ("arithmetic", "student_and_teacher"),
        {("translation", "imit_kd"), ("arithmetic", "imit_kd")},
    )
    assert lost == {"steps": {ours}, "seconds": {ours}, "tokens": {ours, *imit}}
    seconds = {row["verdict"] for key, row in rows.items() if key[0] == "seconds"}
    assert seconds == {"worse", "undecided", ""}  # none is for the reference, which has no verdict
    against = "{} against {}".format
    assert against(means["steps", *ours], means["steps", "arithmetic", "skd"]) in said
    kd, skd = (means["seconds", "translation", name] for name in ("supervised_kd", "skd"))
    assert f"at {kd} on translation beside `skd`'s {skd}" in said
    for task, method in imit:
        assert against(means["tokens", task, method], means["tokens", task, "skd"]) in said
        apart = [float(m) for (view, of, _), m in means.items() if (view, of) == ("steps", task)]
        gain = float(means["tokens", task, method]) - float(means["steps", task, method])
        assert gain > max(apart) - min(apart)
    steps = [
        int(r["steps"]) for key, r in rows.items() if key[0] == "tokens" and key[2] == "imit_kd"
    ]
    assert f"{min(steps)} to {max(steps)} steps" in said
    longest = max(int(r["steps"]) for key, r in rows.items() if key[0] == "seconds")
    assert f"up to {longest / 250:.1f} times" in said


def cells(line: str) -> list[str]:
    """Of a row of a Markdown table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]

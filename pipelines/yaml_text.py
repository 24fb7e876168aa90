"""A parameter file as plain values: only YAML that means one thing, and nothing that is secret.

YAML allows more than a person can have meant: the same key twice (the last one would win), tags
that make objects, aliases that grow without bound, a structure within itself. Each is one message
with file and line. Knows no parameter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from skd.errors import UserError, printable

LARGEST_FILE = 1_000_000  # bytes: the longest profile has 12,000
LARGEST_DOCUMENT = 100_000  # values, aliases written out
_TAG = "tag:yaml.org,2002:"
_KINDS = ("str", "int", "float", "bool", "null", "map", "seq", "merge")
# What looks like a secret. Parameters are committed, hashed and shown; the environment is not.
_SECRETS = {
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{30,}"),
    "a GitHub token": re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36,}"),
    "an AWS key": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "an address with a password": re.compile(r"://[^/\s:@]+:[^/\s@]+@"),
}


def read_yaml(file: Path) -> Any:
    """A parameter file as it stands. Raises `UserError` when there is none or it cannot be read."""
    return parse_yaml(read_text(file), str(file))


def parse_yaml(text: str, origin: str) -> Any:
    """The values of such a text. Raises `UserError` naming `origin`, the file."""
    for number, line in enumerate(text.splitlines(), 1):
        for secret, pattern in _SECRETS.items():
            if pattern.search(line):
                raise UserError(
                    f"{origin}, line {number}: this looks like {secret}; parameters are committed "
                    "and shown in reports: take it out, and give it by the environment (HF_TOKEN, "
                    "AWS_SECRET_ACCESS_KEY, …)"
                )
    try:
        return _values(text, origin)
    except RecursionError:
        raise UserError(f"{origin}: nested too deeply; no parameter is") from None
    except yaml.YAMLError as error:
        raise UserError(f"{origin}: not valid YAML: {error}") from None
    except (ValueError, KeyError, IndexError) as error:  # `!!int x`, `!!bool x`, `!!int ""`
        raise UserError(f"{origin}: a value is not what its tag says: {error}") from None


def read_text(file: Path) -> str:
    """The text of a parameter file. Raises `UserError` as `read_yaml` does."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{file}: no such parameter file; run from the project's root") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    if len(content) > LARGEST_FILE:
        raise UserError(f"{file}: {len(content):,} bytes are too many for a parameter file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}, line {line}: not UTF-8; convert the file to UTF-8") from None


def _values(text: str, origin: str) -> Any:
    loader = yaml.SafeLoader(text)
    loader.name = origin  # in messages
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, frozenset(), {}) > LARGEST_DOCUMENT:
            raise _refusal("more values than any parameter file has, aliases written out", node)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _size(node: yaml.Node, inside: frozenset[int], known: dict[int, int]) -> int:
    """The values in a node, an alias counted as what it stands for; refuses what it finds."""
    if id(node) in inside:
        raise _refusal("an alias of what it stands in", node)
    if id(node) not in known:
        _check(node)
        parts = (_size(part, inside | {id(node)}, known) for part in _parts(node))
        known[id(node)] = 1 + sum(parts)
    return known[id(node)]


def _parts(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _check(node: yaml.Node) -> None:
    if isinstance(node, yaml.ScalarNode) and printable(node.value) != node.value:
        raise _refusal("a text holds a character that is not to be seen; take it out", node)
    kind = str(node.tag).removeprefix(_TAG)
    if kind not in _KINDS:
        raise _refusal(f"a {kind} is no value of a parameter; put quotes around a text", node)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _refusal("a key must be a name", key)
        if key.value in seen:
            raise _refusal(f"the key {key.value!r} stands twice; remove one", key)
        seen.add(key.value)


def _refusal(what: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=what, problem_mark=node.start_mark)

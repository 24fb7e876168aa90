"""Numbers that were computed before, in one sqlite file: key -> number.

Several processes may read and write at once; a process killed while writing leaves what it wrote
before. Knows no metric: a key is a hash of everything that its number depends on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from skd.errors import UserError

PATIENCE = 120.0  # seconds that a process waits for another's write
# OR IGNORE: of two processes that computed one number at once the first is kept.
_WRITE = "INSERT OR IGNORE INTO numbers VALUES (?, ?)"
_READ = "SELECT value FROM numbers WHERE key = ?"
_CREATE = """CREATE TABLE IF NOT EXISTS numbers
(key BLOB PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID"""


def read(file: Path, keys: Iterable[bytes]) -> dict[bytes, float]:
    """Those of the keys that are known."""
    with _opened(file) as connection:
        rows = ((key, connection.execute(_READ, (key,)).fetchone()) for key in keys)
        return {key: row[0] for key, row in rows if row is not None}


def write(file: Path, numbers: Mapping[bytes, float]) -> None:
    """Add these, all or none."""
    with _opened(file) as connection, connection:
        connection.executemany(_WRITE, numbers.items())


@contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    """A connection of this call alone: one that is open during a fork would break in the child.

    Raises:
        UserError: the file cannot be used.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(file, timeout=PATIENCE)) as connection:
            connection.execute(_CREATE)
            yield connection
    except sqlite3.Error as error:
        raise UserError(
            f"{file}: {error}. It only saves time: delete it (runtime.scratch in params.yaml says "
            "where it is kept) and run the stage again"
        ) from error

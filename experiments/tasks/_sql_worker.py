"""A process that runs untrusted queries, `python -m experiments.tasks._sql_worker`: `text_metrics._sandbox` starts it.

It reads requests from stdin, a JSON object a line: table (its fields), references and output, all queries. For each it
writes {"error": …} if the data are broken, else {"ready": true} when the references have been run, and {"same": …}
when the output has. The system ends the process when a request takes more seconds of a processor than SECONDS.
"""

from __future__ import annotations

import json
import math
import resource
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from experiments.tasks._sql_engine import database, run
from experiments.tasks._sql_query import Table
from lora.config import InputError

SECONDS = 2  # of a processor, for one request: queries of WikiSQL's shape take milliseconds
MEMORY = 2**29  # bytes beside what the process holds at its start


def answer(request: dict[str, Any]) -> None:
    """Write the answers to one request."""
    table = Table.of(request["table"])
    try:
        with closing(database(table)) as connection:
            wanted = [run(connection, reference, table) for reference in request["references"]]
            if None in wanted:
                raise InputError(f"the data are broken: SQLite does not run: {request['references'][0].strip()}")
            _say(ready=True)
            written = run(connection, request["output"], table)
            _say(same=written is not None and written in wanted)
    except InputError as error:
        _say(error=str(error))


def _say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def _limit_memory() -> None:
    pages = Path("/proc/self/statm")
    if pages.is_file():  # elsewhere SQLite's own limit has to do
        held = int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))


def _limit_time() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    # Rounded up twice: the system counts whole seconds. Its signal ends the process, whatever SQLite is doing.
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used.ru_utime + used.ru_stime) + SECONDS + 1, hard))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_memory()
    for line in sys.stdin:
        _limit_time()
        answer(json.loads(line))

"""Write the pages for those who close positions from another service or read the topics: `make docs`.

They open from disk.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Final

from close_api.rest.problems import error_table
from docs.site.asyncapi_page import NotRendered, write_asyncapi
from docs.site.grpc_page import described_proto, grpc_page
from docs.site.markup import STYLE, page, prose
from docs.site.rest_page import rest_page
from docs.site.topics_page import topic_pages

REPOSITORY: Final = Path(__file__).parents[2]
OPENAPI: Final = REPOSITORY / "schemas" / "openapi.json"
DEFAULT: Final = REPOSITORY / "var" / "docs"
_ERRORS: Final = """
One table for both doors, made from the enum that they answer from. Over REST a code is the member `code` of the
problem document (RFC 9457), under `/api/` the member `error`; over gRPC it is the reason of `google.rpc.ErrorInfo`, in
upper case.

Repeating a call with the same key is always safe. Where the table says no, it only does not help: read what the message
says, or, after `internal_error`, repeat it once to see what was done.
"""
_ASYNCAPI: Final = (
    '<li><a href="asyncapi/index.html">AsyncAPI</a>: the same of the topics, rendered from schemas/asyncapi.yaml</li>\n'
)
_OVERVIEW: Final = """
closeflow closes trading positions, each close exactly once. Another service asks for a close through one of two doors,
which share their rules, keys and errors: REST for what is simple to call, gRPC for streams and types.

What there is to know before the first call:

- A close is answered when it is durable. Orders are sent after that: follow the close request until it is `completed`
or `failed`, by waiting, by watching, or by asking again.
- Every close has an idempotency key that its caller makes: a new one for each close that is meant, kept and sent again
when that close is repeated, whichever door it goes through. Then it is safe to repeat whatever was not answered.
- Every call has a bearer token. Its scopes say what it may do: `close:write` (which includes reading), `close:read`,
`close:operate`. Its claim `accounts` says for which accounts; everything else is not there.
- Quantities and prices are decimals: numbers in JSON, strings in gRPC, never binary floats.
- An error has a code that never changes, says what is wrong, how to mend it, and whether it helps to repeat the call.
"""


def pages(*, rendered: bool = False) -> dict[str, str]:
    """File name → content; with a link to the AsyncAPI page where that is there."""
    places = (
        """<ul>
<li><a href="rest.html">REST</a>: every route with its parameters, body, answers and errors</li>
<li><a href="grpc.html">gRPC</a>: every call, message and enum</li>
<li><a href="errors.html">Errors</a>: every code, over both doors, and what to do</li>
<li><a href="topics.html">Topics</a>: what risk, accounting and others may read in Kafka, and rely on</li>
"""
        + (_ASYNCAPI if rendered else "")
        + """</ul>
<p>How it is done step by step, with REST, gRPC and the Python client, is in
<code>docs/how-to/close-from-your-service.md</code>.</p>
"""
    )
    return {
        "index.html": page("index.html", "Close positions from another service", prose(_OVERVIEW) + places),
        "rest.html": rest_page(json.loads(OPENAPI.read_text())),
        "grpc.html": grpc_page(described_proto()),
        "errors.html": page("errors.html", "Errors", f'{prose(_ERRORS)}<div class="wide">{error_table()}</div>'),
        **topic_pages(),
    }


def write(into: Path, *, rendered: bool = False) -> None:
    """Make the directory what it should be; nothing is read from a network."""
    into.mkdir(parents=True, exist_ok=True)
    for name, text in pages(rendered=rendered).items():
        (into / name).write_text(text)
    shutil.copyfile(STYLE, into / STYLE.name)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    rendered = False
    try:
        sys.stdout.write(f"{write_asyncapi(target / 'asyncapi')}\n")
        rendered = True
    except NotRendered as error:
        sys.stderr.write(
            f"the AsyncAPI page is left out: {error}; {target / 'topics.html'} says the same of the topics\n"
        )
    write(target, rendered=rendered)
    sys.stdout.write(f"{target / 'index.html'}\n")

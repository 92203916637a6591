# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""From where a framework's own search is asked about tables in PostgreSQL: a connection that passes the fence, to read.

PRIVATE to the collection. The password is not in the address, whose text an application's errors may show: the client
library finds it, and once more what opens the fence, in the environment that the asking program sets for itself.
"""
from __future__ import annotations

import contextlib
import typing as t
import urllib.parse

from .._layouts.tables import TablesLayout
from .._store_own import Framework, Place
from .._table_records import namespace_fields
from .postgresql_connect import Connected
from .postgresql_fence import OPERATING
from .postgresql_schema import quoted

APPLICATION: t.Final = "memops.agent_memory search"


class TablesSearch(Connected):
    """See _store_own.HasOwnSearch."""

    table_schema: str
    _tables_layout: TablesLayout

    def framework(self) -> Framework:
        return Framework(self._tables_layout.search, self._tables_layout.tables("postgresql")[0])

    @contextlib.contextmanager
    def searching(self, namespace: str, seconds: float) -> t.Iterator[Place]:
        rule = self.framework().root.namespace
        within = namespace_fields(rule, namespace) if rule.kind == "json" else namespace
        arguments = dict(self.address.arguments)
        secret = arguments.pop("password", None)
        options = self._options(str(arguments.get("options") or ""), seconds)
        arguments.update(options=options, application_name=APPLICATION)
        variables = {"PGOPTIONS": options, **({} if secret is None else {"PGPASSWORD": str(secret)})}
        secrets = () if secret is None else (str(secret),)
        yield Place(address(arguments), variables, secrets, within)

    def _options(self, given: str, seconds: float) -> str:
        """Read-only, past the fence, where the application's tables and the vectors' type are found by their names."""
        with self._asking() as session:
            found = session.rows(
                "SELECT n.nspname::text FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace "
                "WHERE e.extname = 'vector'"
            )
        schemas = dict.fromkeys([self.table_schema, *(row[0] for row in found), "public"])
        settings = {
            OPERATING: "on",
            "default_transaction_read_only": "on",
            "statement_timeout": str(int(seconds * 1000)),
            "search_path": ",".join(map(quoted, schemas)),
        }
        said = [f"-c {name}={_escaped(value)}" for name, value in settings.items()]
        return " ".join([given, *said]).strip()


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


def address(arguments: t.Mapping[str, t.Any]) -> str:
    """What libpq is told, as a URL: frameworks take one where they may not take other forms."""
    rest = {name: str(value) for name, value in arguments.items()}
    host, user = rest.get("host", ""), rest.pop("user", "")
    where = ""
    if host and not host.startswith("/") and "," not in host and "," not in rest.get("port", ""):
        del rest["host"]
        port = rest.pop("port", "")
        where = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    base = urllib.parse.quote(rest.pop("dbname", ""), safe="")
    login = urllib.parse.quote(user, safe="") + "@" if user else ""
    return f"postgresql://{login}{where}/{base}?" + urllib.parse.urlencode(rest, quote_via=urllib.parse.quote)

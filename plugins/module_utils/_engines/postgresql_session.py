# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Sessions with a PostgreSQL server: how they are opened, and how a statement is run.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import os
import struct
import threading
import typing as t

from .._errors import InvalidInput, MemoryOpsError, StoreUnavailable
from .postgresql_arrays import teach
from .postgresql_errors import PACKAGE, refused_connection, translate

OLDEST: t.Final = 150_000  # version 15
WRITING: t.Final = "READ COMMITTED"  # not READ WRITE: an administrator who made the server read-only has a reason
SNAPSHOT: t.Final = "REPEATABLE READ READ ONLY"
APPLICATION: t.Final = "memops.agent_memory"
#: Sessions of a parent process: closing them would end the parent's.
_ABANDONED: list[Session] = []


class Address:
    """Where a store is and who connects: what libpq wants to know. Its text never shows a password."""

    def __init__(self, params: t.Mapping[str, t.Any], busy_timeout: float) -> None:
        self.busy_timeout = busy_timeout
        self.arguments = _arguments(params)
        a = self.arguments
        host = a.get("host") or a.get("hostaddr") or ("service " + str(a["service"]) if "service" in a else "localhost")
        hosts, ports = str(host).split(","), str(a.get("port") or 5432).split(",")
        places = (f"{one}:{ports[n] if len(ports) > 1 else ports[0]}" for n, one in enumerate(hosts))
        self.where = f"postgresql://{','.join(places)}/{a.get('dbname') or a.get('user') or ''}"

    def __repr__(self) -> str:
        return f"<Address {self.where}>"

    def connect(self) -> Session:
        """Errors: StoreUnavailable, InvalidInput for a server that is too old."""
        psycopg = driver()
        try:
            con = psycopg.connect(autocommit=True, **self.arguments)
        except (psycopg.Error, UnicodeError) as exc:
            raise refused_connection(exc, self.where) from None
        try:
            teach(con)
            session = Session(con, self.where)
            if con.info.server_version < OLDEST:
                raise InvalidInput(
                    f"The PostgreSQL server of {self.where} has version {con.info.server_version // 10000}; this needs "
                    "15 or newer.",
                    "upgrade the server",
                )
            milliseconds = str(max(1, int(self.busy_timeout * 1000)))
            session.rows(  # a server's or role's defaults must not end a long step in its middle
                "SELECT set_config('lock_timeout', %s, false), set_config('statement_timeout', '0', false), "
                "set_config('idle_in_transaction_session_timeout', '0', false), "
                "set_config('idle_session_timeout', '0', false), set_config('jit', 'off', false), "
                # Pages and batches go by the primary key; a table that was just filled has no statistics that say so.
                "set_config('enable_bitmapscan', 'off', false), set_config('enable_hashjoin', 'off', false), "
                "set_config('enable_mergejoin', 'off', false), set_config('enable_sort', 'off', false), "
                # How a value is written is part of a record's name where its key is no text.
                "set_config('timezone', 'UTC', false), set_config('datestyle', 'ISO, MDY', false), "
                "set_config('intervalstyle', 'postgres', false), set_config('extra_float_digits', '1', false), "
                "set_config('bytea_output', 'hex', false), set_config('search_path', 'pg_catalog', false)",
                milliseconds,
            )
            if con.info.server_version >= 170000:
                session.rows("SELECT set_config('transaction_timeout', '0', false)")
            session.replicated = bool(session.row("SELECT current_setting('synchronous_standby_names') <> ''")[0])
        except BaseException:
            con.close()
            raise
        return session


class Session:
    """One connection in autocommit mode. Statements that fail raise MemoryOpsError.

    With ``rescue`` a failed statement does not end the (read) transaction around it.
    """

    def __init__(self, con: t.Any, where: str) -> None:
        self._con, self.where, self._pid = con, where, os.getpid()
        self._cursor = con.cursor(binary=True)
        self.rescue = False
        self.replicated = False  # whether commits may wait for a synchronous standby
        self.patience: float | None = None  # seconds that the next commit waits for standbys; None: without end
        self.state = ""  # SQLSTATE of the statement that failed last

    @property
    def usable(self) -> bool:
        """Whether this process may go on with it."""
        return self._pid == os.getpid() and not self._con.closed

    @property
    def idle(self) -> bool:
        return self.usable and self._con.info.transaction_status == 0

    def say(self, text: str) -> str:
        """Run statements without values; the last one's tag."""
        psycopg = driver()
        try:
            return str(self._con.execute(text).statusmessage)
        except psycopg.Error as exc:
            raise self._failed(exc) from None

    def run(self, text: str, *values: t.Any) -> int:
        """Run a statement; how many rows it concerned."""
        psycopg = driver()
        try:
            return int(self._cursor.execute(text, values).rowcount)
        except psycopg.Error as exc:
            raise self._failed(exc) from None

    def rows(self, text: str, *values: t.Any) -> list[t.Any]:
        psycopg = driver()
        try:
            return t.cast("list[t.Any]", self._cursor.execute(text, values).fetchall())
        except psycopg.Error as exc:
            raise self._failed(exc) from None

    def row(self, text: str, *values: t.Any) -> t.Any:
        """The first row, or None."""
        found = self.rows(text, *values)
        return found[0] if found else None

    def stream(self, text: str) -> t.Iterator[t.Any]:
        """Rows as the server makes them; the session does nothing else until all of them are read."""
        psycopg = driver()
        try:
            yield from self._con.cursor(binary=True).stream(text)
        except psycopg.Error as exc:
            raise self._failed(exc) from None

    def copy(self, text: str, data: bytes) -> None:
        """COPY … FROM STDIN of these bytes."""
        psycopg = driver()
        try:
            with self._con.cursor().copy(text) as copy:
                copy.write(data)
        except psycopg.Error as exc:
            raise self._failed(exc) from None

    def _failed(self, exc: Exception) -> MemoryOpsError:
        self.state = str(getattr(exc, "sqlstate", None) or "")
        lost = bool(self._con.closed)
        standby = not lost and self._con.info.parameter_status("in_hot_standby") == "on"
        error = translate(exc, self.where, lost=lost, standby=standby)
        if self.rescue and not self._con.closed:
            psycopg = driver()
            try:
                self._con.execute("ROLLBACK TO SAVEPOINT memops")
            except psycopg.Error:
                self._con.close()
        return error

    def begin(self, mode: str, *more: str) -> t.Any:
        """Begin a transaction and run more statements without values in the same message; the last one's first row."""
        psycopg = driver()
        try:
            cursor = self._con.execute("; ".join((f"BEGIN ISOLATION LEVEL {mode}", *more)), prepare=False)
            while cursor.nextset():
                pass
            return cursor.fetchone() if more and cursor.description else None
        except psycopg.Error as exc:
            raise self._failed(exc) from None

    def commit(self) -> None:
        """Errors: StoreUnavailable when the transaction had failed before; the server answers COMMIT with ROLLBACK."""
        with self._patient():
            tag = self.say("COMMIT")
        if tag != "COMMIT":
            raise StoreUnavailable(
                f"A transaction of the store {self.where} failed and was rolled back.", "run the same command again"
            )

    @contextlib.contextmanager
    def _patient(self) -> t.Iterator[None]:
        """What is committed here and waits for a synchronous standby for longer than ``patience`` counts: an incident
        must not wait for a server that is gone. The session's next commits wait for none."""
        patience, self.patience = self.patience, None
        if patience is None:
            yield
            return
        asked = threading.Event()

        def cancel() -> None:
            asked.set()
            self._con.cancel()

        timer = threading.Timer(patience, cancel)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
        if asked.is_set():
            with contextlib.suppress(MemoryOpsError):  # the cancelling may come late, and must meet this
                self.rows("SELECT 1")
            self.rows("SELECT set_config('synchronous_commit', 'local', false)")

    def roll_back(self) -> None:
        """Never fails: a session that cannot roll back is closed."""
        self.rescue = False
        if not self.usable or self._con.info.transaction_status == 0:
            return
        psycopg = driver()
        try:
            self._con.execute("ROLLBACK")
        except psycopg.Error:
            self._con.close()

    def close(self) -> None:
        if self._pid == os.getpid():
            self._con.close()
        else:
            _ABANDONED.append(self)


def driver() -> t.Any:
    """The client library. Errors: StoreUnavailable that names the package."""
    try:
        import psycopg
    except ImportError:
        raise StoreUnavailable(
            "The PostgreSQL engine needs the Python package psycopg.", f"install it: pip install '{PACKAGE}'"
        ) from None
    return psycopg


def _arguments(params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Errors: InvalidInput."""
    url = params.get("url")
    if not isinstance(url, str) or not url.startswith(("postgresql://", "postgres://")):
        raise InvalidInput(
            "memory_store.url is not the URL of a PostgreSQL database.", "set it, such as postgresql://db.example/app"
        )
    psycopg = driver()
    try:
        found = dict(psycopg.conninfo.conninfo_to_dict(url))
    except psycopg.Error:  # its text may show what stood in the URL
        raise InvalidInput(
            "memory_store.url cannot be read as the URL of a PostgreSQL database.",
            "write it as postgresql://user@host:port/database?sslmode=verify-full",
        ) from None
    if "password" in found or "sslpassword" in found:
        raise InvalidInput(
            "memory_store.url contains a password.", "take it out and set memory_store.password or password_file"
        )
    if params.get("user"):
        found["user"] = str(params["user"])
    for name, argument in (("tls_ca", "sslrootcert"), ("tls_cert", "sslcert"), ("tls_key", "sslkey")):
        if params.get(name):
            found[argument] = os.path.expanduser(str(params[name]))
            if not os.access(found[argument], os.R_OK):  # the client library would go on without a certificate
                raise InvalidInput(
                    f"memory_store.{name} {params[name]} cannot be read.", "correct its path and its permissions"
                )
    if params.get("tls_ca"):
        found.setdefault("sslmode", "verify-full")
    password = _password(params)
    if password is not None:
        found["password"] = password
    defaults = {
        "connect_timeout": "10", "application_name": APPLICATION, "keepalives": "1", "keepalives_idle": "30",
        "keepalives_interval": "10", "keepalives_count": "3", "tcp_user_timeout": "60000",
    }  # fmt: skip
    return {**defaults, **found, "client_encoding": "UTF8"}


def _password(params: t.Mapping[str, t.Any]) -> str | None:
    password, path = params.get("password"), params.get("password_file")
    if password and path:
        raise InvalidInput("memory_store has both a password and a password_file.", "leave one of them out")
    if password:
        return str(password)
    if not path:
        return None
    try:
        with open(os.path.expanduser(str(path)), encoding="utf-8") as file:
            return file.readline().rstrip("\r\n")
    except (OSError, UnicodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is no text"
        raise InvalidInput(
            f"memory_store.password_file {path} cannot be read: {reason}.", "correct its path and its permissions"
        ) from None


BAD_VALUE: t.Final = (TypeError, ValueError, AttributeError, struct.error)


def bad_record(where: str, exc: Exception) -> InvalidInput:
    what = "a text is not valid Unicode" if isinstance(exc, UnicodeError) else "a field has a wrong type or is too big"
    return InvalidInput(f"The store {where} does not take this record: {what}.", "correct or split the record")

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Whom row-level security does not bind, and who may become such a role.

PRIVATE to the collection.
"""
from __future__ import annotations

import typing as t

from .postgresql_session import Session

#: Whether the role a may act as the role b, at once or by SET ROLE.
MAY: t.Final = (
    "(pg_has_role({a}, {b}, 'USAGE') OR pg_has_role({a}, {b}, "
    "CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END))"
)
UNBOUND: t.Final = "(o.rolsuper OR o.rolbypassrls)"


def unbound_role(session: Session, application: str | None) -> str | None:
    """A role that row-level security does not bind and that the application may set, in words."""
    row = session.row(
        "SELECT o.rolname::text, o.rolsuper FROM pg_roles r, pg_roles o "
        f"WHERE r.rolname = coalesce(%s, current_user) AND o.oid <> r.oid AND NOT r.rolsuper AND {UNBOUND} "
        f"AND {MAY.format(a='r.oid', b='o.oid')} ORDER BY 1 LIMIT 1",
        application,
    )
    return None if row is None else f"{row[0]}, which {'is a superuser' if row[1] else 'has BYPASSRLS'}"

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A record in Amazon Route 53 as a route, through boto3. It leads to the whole store.

PRIVATE to the collection. Applications follow when their resolver's copy expires: the TTL is the time that it takes.
"""

from __future__ import annotations

import time
import typing as t

from .._errors import InvalidInput, MemoryOpsError, RouteUnavailable
from . import Position, host_names

NEXT = "check zone_id, record, credentials and network of memory_route, then run the same command again"
PAUSE = 1.0  # seconds between two questions whether a change has arrived
LONG_TTL = 60  # seconds; above it applications follow late


class Route53Route:
    """Parameters: zone_id, record, type, values, ttl, timeout, profile, region, endpoint_url, retries.

    Positions: {host, value, ttl}.
    """

    unit = "store"

    def __init__(self, params: t.Mapping[str, t.Any], to: str) -> None:
        missing = [name for name in ("zone_id", "record", "values") if not params.get(name)]
        if missing:
            raise InvalidInput(
                f"memory_route lacks {' and '.join(missing)}.", "set what kind=route53 needs: zone_id, record, values"
            )
        self._params = dict(params)
        self._zone = str(params["zone_id"])
        self._record = str(params["record"]).rstrip(".") + "."
        self._type = str(params.get("type") or "CNAME")
        self._values = host_names(params, "values", to)
        self._ttl = int(params.get("ttl") or 30)
        self._timeout = float(params.get("timeout") or 120.0)
        self._to = to
        self._client: t.Any = None
        self.name = f"Record {self._record.rstrip('.')} in Route 53"

    def warnings(self) -> list[str]:
        """What is allowed and not wise."""
        if self._ttl <= LONG_TTL:
            return []
        return [
            f"{self.name} has a TTL of {self._ttl} s: applications may ask the former host that long. "
            f"Set memory_route.ttl to {LONG_TTL} or less."
        ]

    def current(self) -> Position:
        answer = self._call(
            "list_resource_record_sets",
            StartRecordName=self._record,
            StartRecordType=self._type,
            MaxItems="1",
        )
        wanted = (_name(self._record), self._type)
        found = next((s for s in answer["ResourceRecordSets"] if (_name(s["Name"]), s["Type"]) == wanted), None)
        if found is None:
            return None
        values = [one["Value"] for one in found.get("ResourceRecords") or []]
        if len(values) != 1 or found.get("SetIdentifier"):
            raise InvalidInput(
                f"{self.name} is an alias, has several values or a routing policy, so it leads to no one host.",
                "name a plain record of one value in memory_route.record",
            )
        host = next((host for host, value in self._values.items() if self._same(value, values[0])), None)
        if host is None:
            raise InvalidInput(
                f"{self.name} leads to {values[0]:.100}, which is no value of memory_route.values.",
                "add it to memory_route.values, or correct the record",
            )
        return {"host": host, "value": self._plain(values[0]), "ttl": int(found["TTL"])}

    def wanted(self) -> Position:
        return {"host": self._to, "value": self._plain(self._values[self._to]), "ttl": self._ttl}

    def elsewhere(self, position: Position) -> bool:
        return position is not None and position["host"] != self._to

    def switch(self) -> None:
        record = {
            "Name": self._record,
            "Type": self._type,
            "TTL": self._ttl,
            "ResourceRecords": [{"Value": self._values[self._to]}],
        }
        answer = self._call(
            "change_resource_record_sets",
            ChangeBatch={
                "Comment": f"memops.agent_memory: to {self._to}",
                "Changes": [{"Action": "UPSERT", "ResourceRecordSet": record}],
            },
        )
        change = answer["ChangeInfo"]
        ends = time.monotonic() + self._timeout
        while change["Status"] != "INSYNC":
            if time.monotonic() > ends:
                raise RouteUnavailable(
                    f"{self.name} was changed, but not all servers of Route 53 have it after {self._timeout:g} s.",
                    f"wait until change {change['Id']} is INSYNC, then run the same command again",
                )
            time.sleep(PAUSE)
            change = self._call("get_change", zone=False, Id=change["Id"])["ChangeInfo"]

    def check(self) -> None:
        if self.current() != self.wanted():
            raise RouteUnavailable(
                f"{self.name} was changed again by somebody else.",
                "look who else writes it, then run the same command again",
            )

    def _plain(self, value: str) -> str:
        return _name(value) if self._type == "CNAME" else value

    def _same(self, one: str, other: str) -> bool:
        return self._plain(one) == self._plain(other)

    def _call(self, operation: str, *, zone: bool = True, **arguments: t.Any) -> t.Any:
        """One request; nothing of boto leaks. Errors: RouteUnavailable."""
        client = self._client = self._client or self._connect()
        from botocore.exceptions import BotoCoreError, ClientError

        if zone:
            arguments["HostedZoneId"] = self._zone
        try:
            return getattr(client, operation)(**arguments)
        except ClientError as exc:
            error = exc.response.get("Error", {})
            why = f"{error.get('Code')} ({str(error.get('Message') or 'no reason given').strip().rstrip('.')[:200]})"
        except (BotoCoreError, OSError, ValueError) as exc:
            why = str(exc).strip().rstrip(".")[:200] or type(exc).__name__
        raise RouteUnavailable(f"{self.name} cannot be asked or changed: {why}.", NEXT)

    def _connect(self) -> t.Any:
        try:
            from boto3.session import Session
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError
        except ImportError:
            raise MemoryOpsError("The Python package boto3 is missing.", "pip install boto3") from None
        params = self._params
        region = params.get("region") or "us-east-1"
        try:
            session = Session(profile_name=params.get("profile") or None, region_name=region)
            return session.client(
                "route53",
                endpoint_url=params.get("endpoint_url") or None,
                config=Config(
                    connect_timeout=5,
                    read_timeout=15,
                    retries={"mode": "standard", "total_max_attempts": int(params.get("retries") or 5)},
                ),
            )
        except (BotoCoreError, ValueError, OSError) as exc:
            why = str(exc).strip().rstrip(".")[:200]
            raise RouteUnavailable(f"There is no client for Route 53: {why}.", NEXT) from None


def _name(value: str) -> str:
    """A DNS name as compared: case and the last dot do not count."""
    return value.rstrip(".").lower()

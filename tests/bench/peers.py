# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What an operator would do without the collection, by the shortest way."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import time
import typing as t

HOW = {
    "zstd": "Debian, Ubuntu: apt install zstd",
    "restic": "Debian, Ubuntu: apt install restic",
}


def missing(program: str) -> bool:
    if shutil.which(program):
        return False
    print(f"{program} is missing: what is compared with it is left out. Next: {HOW[program]}", flush=True)
    return True


def backup_zstd_upload(path: str, scratch: str, repository: t.Mapping[str, t.Any], key: str) -> int:
    """SQLite's own online copy, zstd -T2 -3, one upload. Bytes sent."""
    for name in (scratch, scratch + ".zst"):
        if os.path.exists(name):
            os.unlink(name)
    source, target = sqlite3.connect(path), sqlite3.connect(scratch)
    source.backup(target)
    target.close()
    source.close()
    subprocess.run(["zstd", "-q", "-T2", "-3", scratch, "-o", scratch + ".zst"], check=True)
    return upload([scratch + ".zst"], repository, key)


def upload(paths: t.Sequence[str], repository: t.Mapping[str, t.Any], key: str) -> int:
    """boto3's ``upload_file`` (parts side by side) of each. Bytes sent."""
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "s3",
        endpoint_url=repository["endpoint_url"],
        region_name=repository["region"],
        aws_access_key_id=repository["access_key"],
        aws_secret_access_key=repository["secret_key"],
        config=Config(s3={"addressing_style": "path"}),
    )
    for path in paths:
        client.upload_file(path, repository["url"].split("/")[2], f"{key}/{os.path.basename(path)}")
    return sum(map(os.path.getsize, paths))


def restic(arguments: t.Sequence[str], repository: t.Mapping[str, t.Any], prefix: str, cache: str) -> None:
    bucket = repository["url"].split("/")[2]
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": repository["access_key"],
        "AWS_SECRET_ACCESS_KEY": repository["secret_key"],
        "RESTIC_REPOSITORY": f"s3:{repository['endpoint_url']}/{bucket}/{prefix}",
        "RESTIC_PASSWORD": "bench",
        "RESTIC_CACHE_DIR": cache,
    }
    subprocess.run(["restic", "-q", *arguments], check=True, env=environment)


def attach_and_insert(backup: str, scratch: str, path: str) -> None:
    """Copy the backup's file here, ATTACH it, INSERT … SELECT its rows into a table of the live store, check."""
    if os.path.exists(scratch):
        os.unlink(scratch)
    shutil.copyfile(backup, scratch)
    con = sqlite3.connect(path, isolation_level=None, timeout=60)
    con.execute("PRAGMA synchronous = FULL")
    sql = con.execute("SELECT sql FROM sqlite_master WHERE name = 'memory_records'").fetchone()[0]
    con.execute("ATTACH ? AS backup", (scratch,))
    con.execute("BEGIN IMMEDIATE")
    con.execute(sql.replace("memory_records", "restored_records").replace('"restored_records"', "restored_records"))
    con.execute("INSERT INTO restored_records SELECT * FROM backup.memory_records ORDER BY generation, key")
    con.execute("COMMIT")
    con.execute("DETACH backup")
    found = con.execute("PRAGMA integrity_check").fetchall()
    if found != [("ok",)]:
        raise RuntimeError(f"integrity_check says {found[:3]}")
    con.close()


def bare_select(path: str) -> int:
    """Every row through the same driver, as Python objects, and nothing done with them."""
    con = sqlite3.connect(path)
    seen = 0
    cursor = con.execute(
        "SELECT key, epoch, sequence, created, updated, expires, deleted, key_id, payload, checksum "
        "FROM memory_records ORDER BY generation, key"
    )
    while rows := cursor.fetchmany(2000):
        seen += len(rows)
    con.close()
    return seen


def two_cores(records: int, size: int) -> float:
    """Records a second that two processes decrypt, encrypt and hash: nothing read, nothing written."""
    context = multiprocessing.get_context("fork")
    started = time.perf_counter()
    crew = [context.Process(target=_crypt, args=(records // 2, size)) for _turn in range(2)]
    for one in crew:
        one.start()
    for one in crew:
        one.join()
    return records / (time.perf_counter() - started)


def _crypt(records: int, size: int) -> None:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    old, new = AESGCM(os.urandom(32)), AESGCM(os.urandom(32))
    head, nonce = os.urandom(110), os.urandom(12)
    sealed = old.encrypt(nonce, os.urandom(size - 28), head)
    decrypt, encrypt, sha256 = old.decrypt, new.encrypt, hashlib.sha256
    for _turn in range(records):
        plain = decrypt(nonce, sealed, head)
        sha256(head + nonce + encrypt(nonce, plain, head)).digest()

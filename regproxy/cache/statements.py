"""The index's tables, and what is asked of them.

A tag's variants are numbered from 0; the variant -1, without a digest, says when the tag was
forgotten last.
"""

from __future__ import annotations

SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE IF NOT EXISTS tags (
    registry TEXT NOT NULL, repository TEXT NOT NULL, tag TEXT NOT NULL, variant INTEGER NOT NULL,
    digest TEXT NOT NULL, verified REAL NOT NULL,
    PRIMARY KEY (registry, repository, tag, variant)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS holdings (
    registry TEXT NOT NULL, repository TEXT NOT NULL, digest TEXT NOT NULL,
    media_type TEXT,
    PRIMARY KEY (registry, repository, digest)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blobs (
    digest TEXT NOT NULL PRIMARY KEY, size INTEGER NOT NULL, used REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS links (
    manifest TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
    PRIMARY KEY (manifest, digest)
) WITHOUT ROWID;
"""

TAG = """SELECT digest, verified FROM tags
WHERE registry = ? AND repository = ? AND tag = ? AND variant = ?"""
PUT_TAG = """INSERT OR REPLACE INTO tags SELECT ?, ?, ?, ?, ?, ? WHERE NOT EXISTS (
SELECT 1 FROM tags
WHERE registry = ? AND repository = ? AND tag = ? AND variant = -1 AND verified >= ?)"""
FORGET_TAG = "DELETE FROM tags WHERE registry = ? AND repository = ? AND tag = ?"
NOTE_FORGOTTEN = "INSERT INTO tags VALUES (?, ?, ?, -1, '', ?)"
DROP_TAG = "DELETE FROM tags WHERE registry = ? AND repository = ? AND tag = ? AND variant = ?"
HOLDING = """SELECT h.media_type, b.size FROM holdings h LEFT JOIN blobs b ON b.digest = h.digest
WHERE h.registry = ? AND h.repository = ? AND h.digest = ?"""
DROP_HOLDING = "DELETE FROM holdings WHERE registry = ? AND repository = ? AND digest = ?"
PUT_HOLDING = """INSERT INTO holdings VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET media_type = coalesce(excluded.media_type, media_type)"""
SIZE = "SELECT size FROM blobs WHERE digest = ?"
PUT_BLOB = """INSERT INTO blobs VALUES (?, ?, ?)
ON CONFLICT DO UPDATE SET size = excluded.size, used = excluded.used"""
DROP_BLOB = "DELETE FROM blobs WHERE digest = ?"
USE_BLOB = "UPDATE blobs SET used = ? WHERE digest = ?"
PUT_LINK = "INSERT OR IGNORE INTO links VALUES (?, ?, ?)"

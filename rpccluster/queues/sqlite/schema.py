"""The tables of the file, and how it is set up. Runs in the keeper.

Each state of an item has an index of its own, which holds the items of that state alone: so a leased or a dead item
costs those that are ready nothing, and ten million items cost a get what ten thousand do.
"""

from __future__ import annotations

__all__ = ["APPLICATION", "COLUMNS", "INLINE_BYTES", "PRAGMAS", "SCHEMA", "VERSION"]

APPLICATION = 0x52504351  # "RPCQ"
VERSION = 1

INLINE_BYTES = 1024  # a larger value has a row of its own, which a change of the item's state does not write again

PRAGMAS = (
    "page_size = 4096",
    "auto_vacuum = incremental",  # the file shrinks again, in steps; must stand before the first table
    "journal_mode = wal",
    "wal_autocheckpoint = 0",  # a checkpoint within a commit would hold everybody up
    "journal_size_limit = 134217728",  # the log is used again, not removed: fsync is faster where no file grows
    "cache_size = -65536",  # KiB
    "temp_store = memory",
    "foreign_keys = off",
)

COLUMNS = "id, queue, state, rank, size, until, attempt, forgiven, session, seq, expires, grp, error, value"

SCHEMA = f"""
create table items (
    id integer primary key, queue integer not null, state integer not null, rank integer not null,
    size integer not null, until real, attempt integer not null, forgiven integer not null, session blob, seq integer,
    expires real, grp text, error text, value blob
);
create index ready on items (queue, rank) where state = 0;
create index blocked on items (queue, rank) where state = 1;
create index delayed on items (until) where state = 2;
create index leased on items (id) where state = 3;
create index dead on items (queue, id) where state = 4;
create index expiring on items (expires) where expires is not null and state < 3;
create index groups on items (queue, grp, state, rank) where grp is not null;
create table large (id integer primary key, value blob not null);
create table queues (
    key integer primary key, number integer not null, name text not null unique, is_paused integer not null,
    token integer, ready integer not null, blocked integer not null, delayed integer not null, leased integer not null,
    dead integer not null, bytes integer not null
);
create table discarded (queue integer primary key);
create table sessions (session blob primary key, seq integer, first integer, count integer, at real) without rowid;
create table duplicates (
    queue integer, dedup_id text, until real, seq integer, first integer, count integer, primary key (queue, dedup_id)
) without rowid;
create index duplicates_until on duplicates (until);
create table acks (number integer primary key autoincrement, count integer not null, pairs blob not null);
create table state (
    only integer primary key check (only = 1), next_number integer not null,
    boot text not null, booted_for real not null, wall real not null, at real not null
);
insert into state values (1, 1, '', 0, 0, 0);
pragma application_id = {APPLICATION};
pragma user_version = {VERSION};
"""

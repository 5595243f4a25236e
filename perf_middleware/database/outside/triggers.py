"""The SQL of the triggers: one function for a namespace, one statement trigger for each table.

    INSERT | UPDATE | DELETE | TRUNCATE, COPY, MERGE  ->  function  ->  NOTIFY at COMMIT
                                                         ^ nothing for what bears the fleet's mark

The text is one `DO` block, which looks into the catalog where it runs: it makes what is missing and
touches nothing else, so it may be run after every migration.  It needs the TRIGGER privilege on the
tables, and CREATE on a schema for the function; nobody has to be a superuser.
Sources: PostgreSQL "CREATE TRIGGER", "NOTIFY", "Overview of Trigger Behavior".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from perf_middleware.database.outside.names import FLEET, mark_of, name_of

VERSION_MIN: Final = 12
LOCK_WAIT: Final = "5s"  # who waits for a table's lock makes all later writers wait behind it
EVERYTHING: Final = '["", null, null]'
"""Told at the end of the block: a migration may have changed what no trigger sees."""

# $1 the names wanted, or null for all; $2 those left out; $3 the function's name.
TABLES: Final = """
select n.nspname, c.relname, c.relkind::text as kind, exists (
    select from pg_catalog.pg_trigger t join pg_catalog.pg_proc p on p.oid = t.tgfoid
    where t.tgrelid = c.oid and not t.tgisinternal and t.tgenabled in ('O', 'A')
      and p.proname = $3
) as is_heard, pg_catalog.format('%I.%I', n.nspname, c.relname) as shown
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.oid not in (
    select pg_catalog.to_regclass(name) from pg_catalog.unnest($2::text[]) name
    where pg_catalog.to_regclass(name) is not null
) and case when $1::text[] is null then
    c.relkind in ('r', 'p', 'f') and c.relpersistence <> 't'
    and n.nspname <> 'information_schema' and pg_catalog."left"(n.nspname, 3) <> 'pg_'
    and not exists (
        select from pg_catalog.pg_depend d where d.objid = c.oid and d.deptype = 'e'
          and d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
    )
else c.oid in (select pg_catalog.to_regclass(name) from pg_catalog.unnest($1::text[]) name) end
union all
select null, name, '-', false, name from pg_catalog.unnest($1::text[]) name
where pg_catalog.to_regclass(name) is null
order by 5
"""

TABLE_KINDS: Final = frozenset({"r", "p"})
KINDS: Final = {
    "f": "a foreign table",
    "v": "a view: name the tables that it is made of",
    "m": "a materialized view: name the tables that it is made of",
    "-": "no such table",
}
"""What cannot be heard, by `pg_class.relkind`; `-` is a name that nothing has."""

_FUNCTION: Final = """
declare
  said text := pg_catalog."left"(pg_catalog.current_query(), 200);
  writer text := '';
begin
  if pg_catalog.starts_with(said, {ours}) then
    writer := pg_catalog.split_part(pg_catalog.substr(said, {begins}), '*/', 1);
    if writer = {fleet} then
      return null;
    end if;
  end if;
  perform pg_catalog.pg_notify({name},
    pg_catalog.json_build_array(writer, tg_table_schema, tg_table_name)::text);
  return null;
end
"""

_INSTALL: Final = """do {tag}
declare
  wanted text[] := {wanted};
  body text := {body};
  place text;
  source text;
  waits text := pg_catalog.current_setting('lock_timeout');
  item record;
begin
  perform pg_catalog.set_config('lock_timeout', {lock_wait}, true);
  select n.nspname, p.prosrc into place, source
    from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where p.proname = {name} and p.pronargs = 0 order by p.oid limit 1;
  place := coalesce(place, pg_catalog.current_schema());
  if place is null then
    raise exception 'no schema to create the function in: set search_path';
  end if;
  if source is distinct from body then
    execute pg_catalog.format(
      'create or replace function %I.%I() returns trigger language plpgsql as %L',
      place, {name}, body);
  end if;
  for item in {tables} loop
    if item.kind in ('r', 'p') then
      if not item.is_heard then
        if exists (
          select from pg_catalog.pg_trigger t where t.tgname = {name}
            and t.tgrelid = pg_catalog.to_regclass(item.shown)
        ) then  -- it is switched off
          execute pg_catalog.format('drop trigger %I on %s', {name}, item.shown);
        end if;
        execute pg_catalog.format(
          'create trigger %I after insert or update or delete or truncate on %s '
          'for each statement execute function %I.%I()',
          {name}, item.shown, place, {name});
      end if;
    elsif wanted is null or item.kind = 'f' then
      raise notice '% is a foreign table: what is written at its own server is not heard',
        item.shown;
    else
      raise exception '% is no table that could be heard', item.shown;
    end if;
  end loop;
  perform pg_catalog.pg_notify({name}, {everything});
  perform pg_catalog.set_config('lock_timeout', waits, true);
end {tag};
"""

_DROP: Final = """do {tag}
declare
  wanted text[] := {wanted};
  item record;
begin
  for item in
    select t.tgname, t.tgrelid from pg_catalog.pg_trigger t
    join pg_catalog.pg_proc p on p.oid = t.tgfoid
    where p.proname = {name} and not t.tgisinternal
      and (wanted is null or t.tgrelid in (
        select pg_catalog.to_regclass(name) from pg_catalog.unnest(wanted) name))
  loop
    execute pg_catalog.format(
      'drop trigger %I on %s', item.tgname, item.tgrelid::pg_catalog.regclass);
  end loop;
  for item in
    select p.oid::pg_catalog.regprocedure as signature from pg_catalog.pg_proc p
    where p.proname = {name} and p.pronargs = 0
      and not exists (select from pg_catalog.pg_trigger t where t.tgfoid = p.oid)
  loop
    execute pg_catalog.format('drop function %s', item.signature);
  end loop;
  perform pg_catalog.pg_notify({name}, {everything});
end {tag};
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Triggers:
    """Those of one namespace.

    Names are as in SQL: `orders`, `shop.orders`, `shop."Odd Name"`; what is not quoted is in small
    letters, and without a schema the search path decides.  `tables` None: all, but those of
    PostgreSQL itself and of extensions.
    """

    namespace: str
    tables: tuple[str, ...] | None = None
    tables_except: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the channel, the function and each trigger."""
        return name_of(self.namespace)

    def sql(self) -> str:
        """One statement that makes what is missing.  It fails for a name that is no table."""
        before = mark_of(self.namespace, "").removesuffix("*/")
        body = _FUNCTION.format(
            ours=quoted(before),
            begins=len(before) + 1,
            fleet=quoted(FLEET),
            name=quoted(self.name),
        )
        # The names last: they may have a $ in them.
        tables = TABLES.strip().replace("$3", quoted(self.name))
        tables = tables.replace("$1::text[]", "wanted")
        tables = tables.replace("$2::text[]", _array(self.tables_except))
        return self._filled(_INSTALL, body=quoted(body), lock_wait=quoted(LOCK_WAIT), tables=tables)

    def drop_sql(self) -> str:
        """One statement that removes the triggers, and the function with the last of them."""
        return self._filled(_DROP)

    def _filled(self, template: str, **further: str) -> str:
        parts = {
            "name": quoted(self.name),
            "wanted": "null" if self.tables is None else _array(self.tables),
            "everything": quoted(EVERYTHING),
            **further,
        }
        tag = "$perf$"
        while any(tag in part for part in parts.values()):
            tag = f"{tag[:-1]}_$"
        return template.format(tag=tag, **parts)


def quoted(text: str) -> str:
    """`text` as a literal, whatever `standard_conforming_strings` says.

    Raises ValueError for control characters but line feeds: PostgreSQL has no NUL, and names have
    none of the others.
    """
    if any(char < " " and char != "\n" for char in text):
        raise ValueError(f"has a control character: {text!r}")
    if "\\" not in text:
        return "'" + text.replace("'", "''") + "'"
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def _array(names: tuple[str, ...]) -> str:
    return f"array[{', '.join(map(quoted, names))}]::text[]"

//! What stands in the target before a restore in place: every table of it is locked, and what came after the backup is
//! dropped first, since `pg_restore --clean` drops only what the backup holds. Both are done by `pg_restore` itself, in
//! the one transaction of the restore, with the names and the statements that pg_dump has for them.

use std::io::Read;

use super::context::{Context, Live, blocking};
use crate::archive::{First, Inventory, Toc, TocEntry};
use crate::error::{Error, Result};
use crate::postgres::dump::{Dump, DumpOptions};

/// What stands there.
pub struct Present {
    toc: Toc,
    inventory: Inventory,
}

impl Present {
    /// Reads it, in the encoding of the backup that comes in its place.
    pub async fn read(ctx: &Context, live: &Live, encoding: &str) -> Result<Present> {
        let options = DumpOptions {
            encoding: Some(encoding.to_owned()),
            exclude_schemas: ctx.left_out().to_vec(),
            schema_only: true,
            lock_wait: ctx.settings.backup.timeout,
            ..DumpOptions::default()
        };
        let mut dump = Dump::begin(&live.tools, &ctx.target, &options)?;
        let toc = blocking(move || {
            let mut bytes = Vec::new();
            dump.read_to_end(&mut bytes)
                .map_err(|error| Error::failed("reading pg_dump's output failed").because(error))?;
            dump.finish()?;
            Ok(Toc::parse(&bytes)?)
        })
        .await?;
        Ok(Present { inventory: Inventory::of(&toc), toc })
    }

    /// Locks every table against writers, but not against readers; then goes on as `then` says.
    pub fn lock(&self, then: &str) -> First {
        let mut statement = Vec::new();
        for entry in self.toc.entries.iter().filter(|entry| entry.description.0 == b"TABLE") {
            let before: &[u8] = if statement.is_empty() { b"LOCK TABLE ONLY " } else { b", ONLY " };
            statement.extend_from_slice(before);
            quoted(&mut statement, &entry.namespace.0);
            statement.push(b'.');
            quoted(&mut statement, &entry.tag.0);
        }
        if !statement.is_empty() {
            statement.extend_from_slice(b" IN EXCLUSIVE MODE; ");
        }
        statement.extend_from_slice(then.as_bytes());
        First { about: ("LOCK".to_owned(), b"every table".to_vec()), statement }
    }

    /// Drops every object that the backup does not hold, in reverse order of creation.
    pub fn drops(&self, backup: &Inventory) -> Vec<First> {
        let added = backup.compare(&self.inventory).added;
        let is_new = |entry: &&TocEntry| {
            !entry.drop_statement.is_empty() && added.contains(&crate::archive::inventory::item_name(entry))
        };
        let drop = |entry: &TocEntry| First {
            about: (entry.description.lossy(), entry.tag.0.clone()),
            statement: if_exists(&entry.drop_statement.0),
        };
        self.toc.entries.iter().rev().filter(is_new).map(drop).collect()
    }

    /// Whether the schema is the one of this backup, which was taken later.
    pub fn is_still(&self, later: &Inventory) -> bool {
        self.inventory.compare(later).is_empty()
    }
}

/// An identifier, whatever the encoding: in none that a server has is a quote a part of another character.
fn quoted(sql: &mut Vec<u8>, name: &[u8]) {
    sql.push(b'"');
    for byte in name {
        if *byte == b'"' {
            sql.push(b'"');
        }
        sql.push(*byte);
    }
    sql.push(b'"');
}

/// `DROP TABLE x;` → `DROP TABLE IF EXISTS x CASCADE;`, where the statement has that form.
fn if_exists(statement: &[u8]) -> Vec<u8> {
    let statement = statement.trim_ascii();
    let statement = statement.strip_suffix(b";").unwrap_or(statement);
    const KINDS: [&str; 12] = [
        "MATERIALIZED VIEW",
        "FOREIGN TABLE",
        "EVENT TRIGGER",
        "TABLE",
        "VIEW",
        "SEQUENCE",
        "INDEX",
        "FUNCTION",
        "PROCEDURE",
        "TYPE",
        "DOMAIN",
        "SCHEMA",
    ];
    for kind in KINDS {
        if let Some(rest) = statement.strip_prefix(format!("DROP {kind} ").as_bytes()) {
            return [format!("DROP {kind} IF EXISTS ").as_bytes(), rest, b" CASCADE;"].concat();
        }
    }
    [statement, b";"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_drops_take_what_leans_on_them() {
        let mut sql = Vec::new();
        quoted(&mut sql, b"a\"b\xe9");
        assert_eq!(sql, b"\"a\"\"b\xe9\"");
        for (statement, expected) in [
            (&b"DROP TABLE public.t;\n"[..], &b"DROP TABLE IF EXISTS public.t CASCADE;"[..]),
            (b"DROP MATERIALIZED VIEW p.\xe9;", b"DROP MATERIALIZED VIEW IF EXISTS p.\xe9 CASCADE;"),
            (b"ALTER TABLE ONLY public.t DROP CONSTRAINT c;\n", b"ALTER TABLE ONLY public.t DROP CONSTRAINT c;"),
        ] {
            assert_eq!(if_exists(statement), expected);
        }
    }
}

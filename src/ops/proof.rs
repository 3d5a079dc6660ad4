//! Evidence of what a database holds, and the comparison that proves it unchanged.
//!
//! Evidence is read the way a backup is made: `pg_dump` writes the database, and the table of contents
//! and the row digests are taken from the bytes as they pass. The backup's own manifest is the evidence
//! of before, at exactly its snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use serde::Serialize;

use super::context::{Context, blocking};
use crate::archive::inventory::{self, Difference};
use crate::archive::{Digest, Inventory, Scanner, Toc};
use crate::error::{Error, Result};
use crate::keys::SubKeys;
use crate::manifest::{DatabaseProperties, Manifest};
use crate::migration::{Script, additive_run, runs_queries};
use crate::postgres::dump::{Dump, DumpOptions};
use crate::postgres::{Session, Target, Tools, checks};

/// What a database holds, as far as it can be compared.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The schema.
    pub inventory: Inventory,
    /// What the dump does not show.
    pub extras: Vec<String>,
    /// Rows by the statement that loads them. Empty when only the schema was read.
    pub rows: BTreeMap<RowsOf, Digest>,
    /// Sequences' values.
    pub sequences: BTreeMap<String, (i64, bool)>,
    /// The sequences that count downwards, as far as the evidence tells.
    pub descending: BTreeSet<String>,
    /// The table of contents that it was read from; a manifest does not keep it.
    pub toc: Option<Toc>,
}

/// What a digest is of: a table with a list of columns. The statement is part of the name because a
/// table whose columns changed their order holds other rows, as far as its readers are concerned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowsOf {
    /// `schema.table`, or `large objects`.
    pub table: String,
    /// The dump's COPY statement.
    pub statement: Vec<u8>,
}

/// How much of a database is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The schema only: quick whatever the size.
    Schema,
    /// Every row as well.
    Rows,
}

/// The result of a comparison: the `proof` of a run's result.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Proof {
    /// `digests`, `additive`, `nothing-committed`, `restore`, or empty while nothing is proved.
    pub kind: String,
    /// Whether it holds.
    pub holds: bool,
    /// The fingerprint expected.
    pub fingerprint_before: String,
    /// The fingerprint found.
    pub fingerprint_after: String,
    /// What of the schema differs.
    pub schema: Difference,
    /// What else of the catalog differs.
    pub catalog: Vec<String>,
    /// Tables whose rows were compared.
    pub tables_compared: usize,
    /// Rows that were compared.
    pub rows_compared: u64,
    /// Tables whose rows differ, with both counts.
    pub tables_differing: Vec<String>,
    /// Sequences that stand before the value that they had.
    pub sequences_behind: Vec<String>,
    /// Differences that are known to mean nothing.
    pub benign: Vec<String>,
    /// How long it took.
    pub duration_ms: u64,
}

impl Proof {
    /// What does not hold, in a few words.
    pub fn why_not(&self) -> String {
        let mut parts = Vec::new();
        let schema =
            [("added", &self.schema.added), ("missing", &self.schema.removed), ("changed", &self.schema.changed)];
        for (word, names) in schema {
            if let Some(first) = names.first() {
                parts.push(format!("{word}: {first}{}", and_more(names.len())));
            }
        }
        for (word, names) in [
            ("catalog", &self.catalog),
            ("rows differ", &self.tables_differing),
            ("sequence set back", &self.sequences_behind),
        ] {
            if let Some(first) = names.first() {
                parts.push(format!("{word}: {first}{}", and_more(names.len())));
            }
        }
        parts.join("; ")
    }
}

impl Proof {
    /// Adds what else differs; with anything there, the proof does not hold.
    pub fn differs_in(&mut self, lines: Vec<String>) {
        self.holds &= lines.is_empty();
        self.catalog.extend(lines);
    }
}

fn and_more(count: usize) -> String {
    if count > 1 { format!(" and {} more", count - 1) } else { String::new() }
}

impl Evidence {
    /// What a backup says that the database held.
    pub fn of_manifest(manifest: &Manifest) -> Evidence {
        let mut evidence = Evidence {
            inventory: manifest.sealed.inventory.clone(),
            extras: manifest.sealed.catalog_extras.clone(),
            rows: BTreeMap::new(),
            sequences: manifest.sealed.sequences.clone(),
            descending: BTreeSet::new(),
            toc: None,
        };
        for block in manifest.sealed.streams.iter().flat_map(|stream| &stream.index.blocks) {
            evidence.add(block);
        }
        evidence
    }

    fn add(&mut self, block: &crate::archive::BlockEntry) {
        let table = if block.large_objects {
            "large objects".to_owned()
        } else {
            // Rows of hash partitions by enum are loaded into their root, and need not come back to the same leaf.
            loaded_into(&block.copy_statement.0)
                .unwrap_or_else(|| format!("{}.{}", block.namespace.lossy(), block.table.lossy()))
        };
        let key = RowsOf { table, statement: block.copy_statement.0.clone() };
        self.rows.entry(key).or_default().merge(block.digest);
    }

    /// Reads a living database. Digests are comparable with those of the backup that `keys` belong to.
    pub async fn read(
        ctx: &Context,
        tools: &Tools,
        target: &Target,
        session: &Session,
        keys: &SubKeys,
        depth: Depth,
    ) -> Result<Evidence> {
        Evidence::read_at(ctx, tools, target, session, keys, depth, None).await
    }

    /// The same of an exported snapshot.
    pub async fn read_at(
        ctx: &Context,
        tools: &Tools,
        target: &Target,
        session: &Session,
        keys: &SubKeys,
        depth: Depth,
        snapshot: Option<&str>,
    ) -> Result<Evidence> {
        let options = DumpOptions {
            snapshot: snapshot.map(str::to_owned),
            encoding: Some(session.server_encoding().await?),
            exclude_schemas: ctx.left_out().to_vec(),
            schema_only: depth == Depth::Schema,
            lock_wait: ctx.settings.backup.timeout,
            ..DumpOptions::default()
        };
        let mut dump = Dump::begin(tools, target, &options)?;
        let killer = dump.killer();
        let digest_key = keys.digest;
        let reading = blocking(move || {
            let mut scanner = Scanner::new(digest_key);
            let mut buffer = vec![0; 256 << 10];
            loop {
                let count = dump
                    .read(&mut buffer)
                    .map_err(|error| Error::failed("reading pg_dump's output failed").because(error))?;
                if count == 0 {
                    break;
                }
                scanner.feed(&buffer[..count])?;
            }
            // The exit status first: a dump that died looks like a damaged one to the scanner.
            dump.finish()?;
            Ok(scanner.finish()?)
        });
        let contents = match tokio::time::timeout(ctx.settings.backup.timeout, reading).await {
            Ok(contents) => contents?,
            Err(_) => {
                killer.kill();
                return Err(Error::failed(format!(
                    "reading the database for the proof took longer than {:?}",
                    ctx.settings.backup.timeout
                )));
            }
        };
        let mut evidence = Evidence {
            inventory: Inventory::of(&contents.toc),
            extras: checks::catalog_extras(session, ctx.left_out()).await?,
            rows: BTreeMap::new(),
            sequences: inventory::sequence_values(&contents.toc),
            descending: inventory::descending_sequences(&contents.toc),
            toc: Some(contents.toc),
        };
        for block in &contents.blocks {
            evidence.add(block);
        }
        Ok(evidence)
    }

    /// Compares the schema with that of `after`; rows and sequences too when `depth` says so.
    pub fn compare(&self, after: &Evidence, depth: Depth) -> Proof {
        let mut proof = Proof {
            fingerprint_before: self.inventory.fingerprint().0,
            fingerprint_after: after.inventory.fingerprint().0,
            schema: self.inventory.compare(&after.inventory),
            catalog: differing_lines(&self.extras, &after.extras),
            ..Proof::default()
        };
        if depth == Depth::Rows {
            self.compare_rows(after, &mut proof);
        }
        proof.holds = proof.schema.is_empty()
            && proof.catalog.is_empty()
            && proof.tables_differing.is_empty()
            && proof.sequences_behind.is_empty();
        proof
    }

    fn compare_rows(&self, after: &Evidence, proof: &mut Proof) {
        for (of, digest) in &self.rows {
            proof.tables_compared += 1;
            proof.rows_compared += digest.rows;
            match after.rows.get(of) {
                Some(found) if found == digest => {}
                Some(found) => {
                    proof.tables_differing.push(format!("{} ({} rows, now {})", of.table, digest.rows, found.rows))
                }
                None => proof
                    .tables_differing
                    .push(format!("{} ({} rows, now with other columns or gone)", of.table, digest.rows)),
            }
        }
        for (of, digest) in &after.rows {
            if !self.rows.contains_key(of) && !self.rows.keys().any(|before| before.table == of.table) {
                proof.tables_differing.push(format!("{} (not there before, now {} rows)", of.table, digest.rows));
            }
        }
        for (name, before) in &self.sequences {
            // A sequence that went on is no loss: values that were handed out are never handed out again.
            let downwards = self.descending.contains(name) || after.descending.contains(name);
            match after.sequences.get(name) {
                Some(now) if goes_on(*before, *now, downwards) => {}
                Some(now) => proof.sequences_behind.push(format!("{name} ({} → {})", before.0, now.0)),
                None => {}
            }
        }
    }
}

/// The relation that a COPY statement names, as it writes it.
fn loaded_into(statement: &[u8]) -> Option<String> {
    let relation = statement.get(..end_of_relation(statement)?)?.strip_prefix(COPY)?;
    Some(String::from_utf8_lossy(relation).into_owned())
}

/// Where the relation's name ends in a COPY statement.
pub(super) fn end_of_relation(statement: &[u8]) -> Option<usize> {
    let rest = statement.strip_prefix(COPY)?;
    let mut quoted = false;
    let end = rest.iter().position(|byte| {
        quoted ^= *byte == b'"';
        *byte == b' ' && !quoted
    })?;
    Some(COPY.len() + end)
}

/// How a statement that loads rows begins.
const COPY: &[u8] = b"COPY ";

fn goes_on(before: (i64, bool), now: (i64, bool), downwards: bool) -> bool {
    let further = if downwards { now.0 < before.0 } else { now.0 > before.0 };
    before == now || further || (now.0 == before.0 && now.1)
}

/// What of the database as a whole is another: owner, privileges, settings, limit, comment, and the like. A fence
/// of ours is no difference: the run that put it up takes it away.
pub fn differing_properties(before: &DatabaseProperties, after: &DatabaseProperties, fenced: bool) -> Vec<String> {
    let lines = |properties: &DatabaseProperties| {
        let DatabaseProperties { owner, tablespace, connection_limit, comment, .. } = properties;
        let mut lines = vec![
            format!("database owned by {owner}"),
            format!("database in tablespace {tablespace}"),
            format!("database's connection limit {connection_limit}"),
        ];
        lines.extend(comment.iter().map(|comment| format!("database's comment {comment:?}")));
        let usual = || vec![format!("=Tc/{owner}"), format!("{owner}=CTc/{owner}")];
        let mut acl = properties.acl.clone().unwrap_or_else(usual);
        acl.sort();
        lines.push(format!("database's privileges {}", acl.join(" ")));
        for (role, settings) in &properties.settings {
            let ours =
                |setting: &str| fenced && role.is_empty() && setting.starts_with("default_transaction_read_only=");
            let of = if role.is_empty() { "database".to_owned() } else { format!("role {role} in the database") };
            // The value may be a secret.
            let named = settings.iter().filter(|setting| !ours(setting));
            lines.extend(named.map(|setting| format!("setting of {of}: {}", setting.split('=').next().unwrap_or(""))));
        }
        lines.extend(properties.security_labels.keys().map(|provider| format!("database's label of {provider}")));
        lines
    };
    let mut differing = differing_lines(&lines(before), &lines(after));
    for (role, settings) in &before.settings {
        for setting in settings {
            let name = setting.split('=').next().unwrap_or("");
            let now = after.settings.get(role).into_iter().flatten();
            let other = now.filter(|now| now.split('=').next() == Some(name)).any(|now| now != setting);
            if other && !(fenced && role.is_empty() && name == "default_transaction_read_only") {
                differing.push(format!("another value now: setting {name}"));
            }
        }
    }
    if before.security_labels != after.security_labels && differing.is_empty() {
        differing.push("another value now: label of the database".to_owned());
    }
    differing
}

/// Lines that only one of the two sorted lists has.
fn differing_lines(before: &[String], after: &[String]) -> Vec<String> {
    let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("no longer: {line}"));
    let new = after.iter().filter(|line| !before.contains(line)).map(|line| format!("new: {line}"));
    gone.chain(new).collect()
}

/// Whether text and catalog together tell that nothing of before was changed.
pub async fn only_adds(
    session: &Session,
    ups: &[&Script],
    downs: &[&Script],
) -> Result<std::result::Result<(), String>> {
    if let Err(why) = additive_run(ups, downs) {
        return Ok(Err(why));
    }
    let queries = ups.iter().chain(downs).any(|script| runs_queries(script));
    Ok(checks::hidden_code(session, queries).await?.map_or(Ok(()), Err))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relation_that_rows_are_loaded_into() {
        assert_eq!(loaded_into(b"COPY public.t (a, b) FROM stdin;\n").as_deref(), Some("public.t"));
        assert_eq!(loaded_into(b"COPY \"a \"\"b\".\"c (d\" FROM stdin;").as_deref(), Some("\"a \"\"b\".\"c (d\""));
        assert_eq!(loaded_into(b"SELECT 1"), None);
    }
}

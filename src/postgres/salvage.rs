//! Two databases side by side: which rows one has and the other has not. Both are read in an order that they share,
//! so that neither has to fit into memory; neither is written to.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::TryStreamExt;
use tokio_postgres::CopyOutStream;

use super::databases::get;
use super::{Session, quote, session};
use crate::error::{Error, Result};

/// A table that holds rows of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// `schema.table` as SQL writes it.
    pub relation: String,
    /// Its columns in order, without those that are computed; names as they are.
    pub columns: Vec<String>,
    /// The columns of its primary key; empty without one.
    pub key: Vec<String>,
    /// The tables that its foreign keys point to.
    pub refers_to: Vec<String>,
}

/// A sequence, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// `schema.sequence` as SQL writes it.
    pub relation: String,
    /// Its last value; `None`: nothing was taken from it.
    pub last_value: Option<i64>,
    /// Whether it counts downwards.
    pub descends: bool,
}

/// A row: its values in the order of the columns that were asked for, as text; `None` is NULL.
pub type Values = Vec<Option<Vec<u8>>>;

/// What a comparison finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The first has it, the second has no row of that key.
    Missing(Values),
    /// Both have a row of that key, with other values: the first's, the second's.
    Conflict(Values, Values),
    /// Only the second has it.
    Gone,
}

/// Begins to look at a database: one moment of it, and no way to write. Values are written as every other session
/// here writes them.
pub async fn begin(session: &Session) -> Result<()> {
    // Rows that a policy hides would be missing without a word.
    // language=SQL
    let sql = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
               SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL row_security = off;
               SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'postgres';
               SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 3; SET LOCAL lc_monetary = 'C';
               SET LOCAL xmlbinary = 'base64'";
    session.batch(sql).await
}

/// Every table that holds rows of its own, but ours and extensions'.
pub async fn tables(session: &Session) -> Result<Vec<Table>> {
    // language=SQL
    let sql = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname),
                      ARRAY(SELECT a.attname::pg_catalog.text FROM pg_catalog.pg_attribute AS a
                             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
                             ORDER BY a.attnum),
                      ARRAY(SELECT a.attname::pg_catalog.text
                              FROM pg_catalog.pg_index AS i
                             CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY AS k (number, place)
                              JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.number
                             WHERE i.indrelid = c.oid AND i.indisprimary AND k.place <= i.indnkeyatts
                             ORDER BY k.place),
                      ARRAY(SELECT DISTINCT pg_catalog.format('%I.%I', m.nspname, r.relname)
                              FROM pg_catalog.pg_constraint AS f JOIN pg_catalog.pg_class AS r ON r.oid = f.confrelid
                              JOIN pg_catalog.pg_namespace AS m ON m.oid = r.relnamespace
                             WHERE f.conrelid = c.oid AND f.contype = 'f')
                 FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                WHERE c.relkind = 'r' AND c.relpersistence <> 't'
                  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'ripcord')
                  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                                   WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                                     AND d.objid = c.oid AND d.deptype = 'e')
                ORDER BY 1";
    let rows = session.client().query(sql, &[]).await.map_err(|error| session::explain(&error))?;
    rows.iter()
        .map(|row| {
            Ok(Table { relation: get(row, 0)?, columns: get(row, 1)?, key: get(row, 2)?, refers_to: get(row, 3)? })
        })
        .collect()
}

/// Every sequence but ours.
pub async fn sequences(session: &Session) -> Result<Vec<Sequence>> {
    // language=SQL
    let sql = "SELECT pg_catalog.format('%I.%I', s.schemaname, s.sequencename), s.last_value, s.increment_by < 0
                 FROM pg_catalog.pg_sequences AS s WHERE s.schemaname <> 'ripcord' ORDER BY 1";
    let rows = session.client().query(sql, &[]).await.map_err(|error| session::explain(&error))?;
    rows.iter()
        .map(|row| Ok(Sequence { relation: get(row, 0)?, last_value: get(row, 1)?, descends: get(row, 2)? }))
        .collect()
}

/// Compares a table of two databases, by `columns` that both have, rows being told apart by `key`: all the columns,
/// where there is none. `found` is called for every row that only one of them has, and for every pair that differs.
pub async fn compare(
    first: &Session,
    second: &Session,
    relation: &str,
    columns: &[String],
    key: &[String],
    mut found: impl FnMut(Found) -> Result<()>,
) -> Result<()> {
    let mut mine = Reading::open(first, relation, columns, key).await?;
    let mut theirs = Reading::open(second, relation, columns, key).await?;
    let (mut left, mut right) = (mine.next().await?, theirs.next().await?);
    loop {
        match (left.take(), right.take()) {
            (None, None) => return Ok(()),
            (Some(row), None) => {
                found(Found::Missing(row.values))?;
                left = mine.next().await?;
            }
            (None, Some(_)) => {
                found(Found::Gone)?;
                right = theirs.next().await?;
            }
            (Some(row), Some(other)) if row.order < other.order => {
                found(Found::Missing(row.values))?;
                (left, right) = (mine.next().await?, Some(other));
            }
            (Some(row), Some(other)) if row.order > other.order => {
                found(Found::Gone)?;
                (left, right) = (Some(row), theirs.next().await?);
            }
            (Some(row), Some(other)) => {
                if row.values != other.values {
                    found(Found::Conflict(row.values, other.values))?;
                }
                (left, right) = (mine.next().await?, theirs.next().await?);
            }
        }
    }
}

/// All the rows of a table, in no particular order of sense.
pub async fn every_row(
    session: &Session,
    relation: &str,
    columns: &[String],
    mut found: impl FnMut(Values) -> Result<()>,
) -> Result<()> {
    let mut reading = Reading::open(session, relation, columns, columns).await?;
    while let Some(row) = reading.next().await? {
        found(row.values)?;
    }
    Ok(())
}

struct Row {
    /// SHA-256 of the key, hexadecimal: the order in which both databases give their rows, whatever their collations.
    order: Vec<u8>,
    values: Values,
}

struct Reading<'a> {
    session: &'a Session,
    stream: Pin<Box<CopyOutStream>>,
    buffer: Vec<u8>,
    at: usize,
}

impl Reading<'_> {
    async fn open<'a>(session: &'a Session, relation: &str, columns: &[String], key: &[String]) -> Result<Reading<'a>> {
        let listed = |names: &[String]| {
            names.iter().map(|name| format!("t.{}", quote::ident(name))).collect::<Vec<_>>().join(", ")
        };
        let key = if key.is_empty() { columns } else { key };
        // language=SQL
        let sql = format!(
            "COPY (SELECT pg_catalog.encode(o.of_key, 'hex'), {columns} FROM ONLY {relation} AS t \
             CROSS JOIN LATERAL (SELECT pg_catalog.sha256(pg_catalog.textsend(ROW({key})::pg_catalog.text))) AS o (of_key) \
             ORDER BY o.of_key) TO STDOUT",
            columns = listed(columns),
            key = listed(key),
        );
        let stream = session.client().copy_out(&sql).await.map_err(|error| session.explain(&error))?;
        Ok(Reading { session, stream: Box::pin(stream), buffer: Vec::new(), at: 0 })
    }

    /// The next row; the server sends a line each.
    async fn next(&mut self) -> Result<Option<Row>> {
        loop {
            if let Some(end) = self.buffer[self.at..].iter().position(|byte| *byte == b'\n') {
                let line = &self.buffer[self.at..self.at + end];
                let mut fields = line.split(|byte| *byte == b'\t');
                let order = fields.next().unwrap_or_default().to_vec();
                let row = Row { order, values: fields.map(value).collect() };
                self.at += end + 1;
                return Ok(Some(row));
            }
            self.buffer.drain(..self.at);
            self.at = 0;
            let more: Option<Bytes> = self.stream.try_next().await.map_err(|error| self.session.explain(&error))?;
            match more {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Error::failed("the server's answer ended within a row")),
            }
        }
    }
}

/// A value of COPY's text format. <https://www.postgresql.org/docs/15/sql-copy.html>, File Formats.
fn value(field: &[u8]) -> Option<Vec<u8>> {
    if field == b"\\N" {
        return None;
    }
    let mut text = Vec::with_capacity(field.len());
    let mut bytes = field.iter();
    while let Some(byte) = bytes.next() {
        text.push(match byte {
            b'\\' => match bytes.next() {
                Some(b'b') => 8,
                Some(b'f') => 12,
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(b'v') => 11,
                Some(other) => *other,
                None => b'\\',
            },
            other => *other,
        });
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn values_are_read_as_copy_writes_them() {
        assert_eq!(value(b"\\N"), None);
        assert_eq!(value(b"").as_deref(), Some(&b""[..]));
        assert_eq!(value(b"a\\tb\\nc\\\\N\\r").as_deref(), Some(&b"a\tb\nc\\N\r"[..]));
    }
}

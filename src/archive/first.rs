//! Statements that `pg_restore --clean` runs before any other, in its own session and transaction.
//!
//! pg_restore drops in the reverse order of the table of contents. So an entry at its end, of which there is nothing to
//! make, has its drop statement run first (PostgreSQL's `pg_backup_archiver.c`, `RestoreArchive`).

use super::error::ArchiveError;
use super::parse::{INT_BYTES, NULL, spans, write_int, write_string};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct First {
    /// What it is about, for pg_restore's own messages: a kind, and a name.
    pub about: (String, Vec<u8>),
    /// SQL in the dump's encoding.
    pub statement: Vec<u8>,
}

/// With this before it pg_restore takes a statement as it is, and looks for no place for IF EXISTS in it.
const AS_IT_IS: &[u8] = b"-- \n";

/// An entry that makes nothing is skipped, so each makes this.
const NOTHING: &[u8] = b"SELECT;";

/// A number as a string, for fields that hold one so.
const NO_OID: &[u8] = b"0";

/// A table of contents, of the custom format, with these statements to be run first, in their order.
pub fn clean_first(toc: &[u8], statements: &[First]) -> Result<Vec<u8>, ArchiveError> {
    let whole = spans(toc)?;
    let highest = whole.entries.iter().map(|(entry, _)| entry.dump_id).max().unwrap_or(0);
    let count = u32::try_from(whole.entries.len() + statements.len()).map_err(|_| ArchiveError::TocTooLarge)?;
    let mut bytes = toc.get(..whole.count_at).unwrap_or_default().to_vec();
    bytes.extend_from_slice(&write_int(count));
    bytes.extend_from_slice(toc.get(whole.count_at + INT_BYTES..).unwrap_or_default());
    for (number, first) in (highest.unsigned_abs() + 1..).zip(statements.iter().rev()) {
        bytes.extend_from_slice(&write_int(number));
        // No data follows.
        bytes.extend_from_slice(&write_int(0));
        write_string(&mut bytes, NO_OID)?;
        write_string(&mut bytes, NO_OID)?;
        write_string(&mut bytes, &first.about.1)?;
        write_string(&mut bytes, first.about.0.as_bytes())?;
        // After the data.
        bytes.extend_from_slice(&write_int(4));
        write_string(&mut bytes, NOTHING)?;
        write_string(&mut bytes, &[AS_IT_IS, &first.statement].concat())?;
        // A COPY statement, a schema, a tablespace, an access method.
        for _ in 0..4 {
            bytes.extend_from_slice(&NULL);
        }
        if whole.version >= (1, 16) {
            bytes.extend_from_slice(&write_int(0));
        }
        // The owner; whether it has oids.
        write_string(&mut bytes, b"")?;
        write_string(&mut bytes, b"false")?;
        // The end of what it depends on.
        bytes.extend_from_slice(&NULL);
        // No position of data.
        bytes.push(3);
        bytes.resize(bytes.len() + whole.offset_bytes, 0);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Dump;
    use super::super::toc::Toc;
    use super::*;

    #[test]
    fn the_first_stands_last_and_the_rest_is_as_it_was() {
        for minor in 14..=16 {
            let mut dump = Dump::new(minor);
            dump.table(10, "a", &["1\tx"]);
            let before = Toc::parse(&dump.bytes()).unwrap();
            let first = |name: &str| First {
                about: ("DROP".to_owned(), name.into()),
                statement: format!("DROP {name};").into(),
            };

            let bytes = clean_first(&dump.toc_bytes(), &[first("one"), first("two\u{e9}")]).unwrap();

            let after = Toc::parse(&bytes).unwrap();
            assert_eq!(after.length_bytes, bytes.len() as u64);
            let told = |toc: &Toc| toc.entries.iter().map(|entry| format!("{entry:?}")).collect::<Vec<_>>();
            // Nothing that pg_dump wrote is moved: not even where the positions of data stand.
            assert_eq!(told(&after)[..before.entries.len()], told(&before));
            let added: Vec<_> = after.entries[before.entries.len()..]
                .iter()
                .map(|entry| (entry.tag.lossy(), entry.drop_statement.lossy(), entry.has_data))
                .collect();
            assert_eq!(
                added,
                [
                    ("two\u{e9}".to_owned(), "-- \nDROP two\u{e9};".to_owned(), false),
                    ("one".to_owned(), "-- \nDROP one;".to_owned(), false),
                ]
            );
        }
    }

    #[test]
    fn a_table_of_contents_that_is_damaged() {
        let bytes = Dump::new(14).toc_bytes();
        assert!(clean_first(&bytes[..bytes.len() - 1], &[]).is_err());
        assert_eq!(clean_first(&bytes, &[]).unwrap(), bytes);
    }
}

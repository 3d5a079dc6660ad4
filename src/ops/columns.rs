//! Rows of tables whose columns stand in another order after a restore, read with the backup's own lists of columns.
//!
//! pg_dump writes a table that inherits with the inherited columns first. One that was made otherwise, and inherits
//! by ALTER TABLE, comes back with its columns in another order: the next dump lists them in that order, and digests
//! of whole lines could not be compared.

use futures_util::TryStreamExt;

use super::proof::{Evidence, RowsOf, end_of_relation};
use crate::archive::{Digest, RowDigester};
use crate::error::{Error, Result};
use crate::keys::SubKeys;
use crate::postgres::session::explain;
use crate::postgres::{Session, TEXT_SETTINGS, Target};

/// Reads again, in the order of `before`, the tables of which `after` has the same columns in another order. What
/// cannot be read so stays as it is, and differs.
pub(super) async fn reread(target: &Target, before: &Evidence, after: &mut Evidence, keys: &SubKeys) -> Result<()> {
    let moved: Vec<(RowsOf, RowsOf)> = before
        .rows
        .keys()
        .filter(|of| !after.rows.contains_key(of))
        .filter_map(|of| {
            let wanted = columns(&of.statement)?;
            let same = |other: &&RowsOf| other.table == of.table && columns(&other.statement).as_ref() == Some(&wanted);
            Some((of.clone(), after.rows.keys().find(same)?.clone()))
        })
        .collect();
    if moved.is_empty() {
        return Ok(());
    }
    let session = Session::connect(target, "proof", target.connect_timeout()).await?;
    prepare(&session).await?;
    for (of, found) in moved {
        match read(&session, &of.statement, keys).await {
            Ok(digest) => {
                after.rows.remove(&found);
                after.rows.insert(of, digest);
            }
            Err(error) if error.connection_lost() => return Err(error),
            Err(_) => {}
        }
    }
    session.close().await;
    Ok(())
}

/// What pg_dump sets for itself before it reads rows.
async fn prepare(session: &Session) -> Result<()> {
    let encoding = session.server_encoding().await?;
    let mut settings: Vec<(&str, &str)> = TEXT_SETTINGS.to_vec();
    settings.extend([
        ("search_path", ""),
        ("datestyle", "ISO"),
        ("intervalstyle", "postgres"),
        ("extra_float_digits", "3"),
        ("synchronize_seqscans", "off"),
        ("row_security", "off"),
        // Rows only are read here, as bytes.
        ("client_encoding", &encoding),
    ]);
    for (name, value) in settings {
        // language=SQL
        let sql = "SELECT pg_catalog.set_config($1, $2, false)";
        session.client().query_one(sql, &[&name, &value]).await.map_err(|error| explain(&error))?;
    }
    Ok(())
}

async fn read(session: &Session, statement: &[u8], keys: &SubKeys) -> Result<Digest> {
    let odd = || Error::failed("the statement is not one that can be turned round");
    let text = std::str::from_utf8(statement).map_err(|_| odd())?;
    // The server reads the statement in the encoding that it writes the rows in.
    if !text.is_ascii() && session.server_encoding().await? != "UTF8" {
        return Err(odd());
    }
    let (what, _) = text.rsplit_once(" FROM stdin;").ok_or_else(odd)?;
    // language=SQL
    let sql = format!("{what} TO STDOUT");
    let rows = session.client().copy_out(&sql).await.map_err(|error| explain(&error))?;
    let mut rows = std::pin::pin!(rows);
    let mut digester = RowDigester::new(&keys.digest_key());
    while let Some(bytes) = rows.try_next().await.map_err(|error| explain(&error))? {
        digester.feed(&bytes).map_err(|_| odd())?;
    }
    Ok(digester.digest())
}

/// The columns of a COPY statement as it writes them, sorted.
fn columns(statement: &[u8]) -> Option<Vec<Vec<u8>>> {
    let list = statement.get(end_of_relation(statement)?..)?.strip_prefix(b" (")?;
    let mut columns = vec![Vec::new()];
    let mut quoted = false;
    for byte in list {
        quoted ^= *byte == b'"';
        match byte {
            b')' if !quoted => {
                for column in &mut columns {
                    *column = column.trim_ascii().to_vec();
                }
                columns.sort();
                return Some(columns);
            }
            b',' if !quoted => columns.push(Vec::new()),
            _ => columns.last_mut()?.push(*byte),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_in_any_order() {
        let of = |statement: &str| columns(statement.as_bytes());
        assert_eq!(
            of("COPY a.b (x, note, \"a, (b)\"\" c\") FROM stdin;\n"),
            of("COPY a.b (note, \"a, (b)\"\" c\", x) FROM stdin;\n")
        );
        assert_ne!(of("COPY a.b (x, note) FROM stdin;\n"), of("COPY a.b (x, note, y) FROM stdin;\n"));
        assert_eq!(of("COPY \"a (b\".\"c)\" (x) FROM stdin;\n"), Some(vec![b"x".to_vec()]));
        assert_eq!(of("COPY a.b FROM stdin;\n"), None);
        assert_eq!(of("SELECT 1"), None);
    }
}

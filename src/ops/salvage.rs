//! `salvage`: the rows that a database kept aside has and the target has not, written to a file. Neither database is
//! written to.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::context::Context;
use super::upkeep;
use crate::clock;
use crate::error::{Error, Result};
use crate::postgres::salvage::{self, Found, Sequence, Table, Values};
use crate::postgres::{Session, guard, quote, swap};

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// INSERT statements; what cannot simply be inserted stands in comments.
    Sql,
    /// For each table a block with a line of names.
    Csv,
}

/// What to look for, and where to write it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The database kept aside; `None`: the one kept last.
    pub from: Option<String>,
    /// How rows are written.
    pub format: Format,
    /// The file; it must not be there yet.
    pub output: PathBuf,
}

/// What was found in one table.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OfTable {
    /// `schema.table`.
    pub table: String,
    /// Rows that only the kept database has.
    pub missing: u64,
    /// Rows of one key with other values in the target.
    pub conflicts: u64,
    /// Rows that only the target has: deleted in the kept one, or new since. They are not written.
    pub only_in_target: u64,
    /// What is to be known of it.
    pub note: Option<String>,
}

impl OfTable {
    fn is_empty(&self) -> bool {
        self.missing == 0 && self.conflicts == 0
    }
}

/// What was written.
#[derive(Clone, Debug, Serialize)]
pub struct Salvaged {
    /// The kept database.
    pub from: String,
    /// The file.
    pub file: PathBuf,
    /// The tables in which the two differ.
    pub tables: Vec<OfTable>,
    /// Rows that only the kept database has.
    pub missing: u64,
    /// Rows of one key with other values in the target.
    pub conflicts: u64,
}

/// Writes the file. It has its name only once it is whole, and only its owner can read it.
pub async fn salvage(ctx: &Context, request: &Request) -> Result<Salvaged> {
    // The path first: a bad one fails before the long work.
    let partial = begin_file(&request.output)?;
    let result = fill(ctx, request, &partial).await;
    if result.is_err() {
        let _ = std::fs::remove_file(&partial.path);
    }
    result
}

struct Partial {
    path: PathBuf,
    file: File,
}

fn begin_file(output: &Path) -> Result<Partial> {
    if output.exists() {
        return Err(Error::usage(format!("`{}` is there already", output.display())).hint("name another file"));
    }
    let mut path = output.as_os_str().to_owned();
    path.push(format!(".{}.partial", std::process::id()));
    let path = PathBuf::from(path);
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let file = file.map_err(|error| {
        Error::usage(format!("`{}` cannot be written", output.display())).because(error).hint("name another file")
    })?;
    Ok(Partial { path, file })
}

async fn fill(ctx: &Context, request: &Request, partial: &Partial) -> Result<Salvaged> {
    let from = kept(ctx, request.from.as_deref()).await?;
    let aside = enter(ctx, &from).await?;
    let target = ctx.connect("salvage").await?;
    salvage::begin(&aside).await?;
    salvage::begin(&target).await?;

    let file = partial.file.try_clone().map_err(|error| unwritten(&request.output, &error))?;
    let mut writer = Writer { format: request.format, out: BufWriter::new(file), path: request.output.clone() };
    writer.head(&from, ctx.target.database(), &aside.server_encoding().await?)?;
    let there = salvage::tables(&target).await?;
    let mut tables = Vec::new();
    for table in in_order(salvage::tables(&aside).await?) {
        ctx.check_cancelled()?;
        ctx.progress.began("salvage", table.relation.clone());
        let other = there.iter().find(|other| other.relation == table.relation);
        let found = one_table(&aside, &target, &table, other, &mut writer).await?;
        if !found.is_empty() || found.note.is_some() {
            tables.push(found);
        }
    }
    let further = further_sequences(&salvage::sequences(&aside).await?, &salvage::sequences(&target).await?);
    writer.end(&further)?;
    writer.out.flush().and_then(|()| writer.out.get_ref().sync_all()).map_err(|error| writer.failed(&error))?;
    // A link, unlike a rename, never takes another file's place.
    std::fs::hard_link(&partial.path, &request.output).map_err(|error| unwritten(&request.output, &error))?;
    std::fs::remove_file(&partial.path).map_err(|error| unwritten(&partial.path, &error))?;
    aside.close().await;
    target.close().await;
    let (missing, conflicts) =
        tables.iter().fold((0, 0), |(missing, conflicts), of| (missing + of.missing, conflicts + of.conflicts));
    ctx.progress.finished("salvage", format!("{missing} rows, {conflicts} conflicts"));
    Ok(Salvaged { from, file: request.output.clone(), tables, missing, conflicts })
}

/// The kept database that is meant.
async fn kept(ctx: &Context, wanted: Option<&str>) -> Result<String> {
    let kept = upkeep::aside_list(ctx).await?;
    let found = match wanted {
        Some(name) => kept.iter().find(|database| database.name == name),
        None => kept.last(),
    };
    found.map(|database| database.name.clone()).ok_or_else(|| {
        Error::usage(match wanted {
            Some(name) => format!("no swap of this database has kept a `{name}`"),
            None => "no swap has kept a database of this one".to_owned(),
        })
        .hint("ripcord aside list")
    })
}

/// A kept database admits nobody: it is opened for as long as it takes to get in.
async fn enter(ctx: &Context, name: &str) -> Result<Session> {
    let (_, maintenance) = guard::open_maintenance(&ctx.target, &ctx.settings).await?;
    swap::allow_connections(&maintenance, name, true).await?;
    let entered = Session::connect(&ctx.target.with_database(name), "salvage", ctx.settings.timeouts.connect).await;
    swap::allow_connections(&maintenance, name, false).await?;
    maintenance.close().await;
    entered
}

/// Tables that others refer to come first, so that the file can be run from its beginning; a circle stays as it is.
fn in_order(mut tables: Vec<Table>) -> Vec<Table> {
    let mut ordered: Vec<Table> = Vec::with_capacity(tables.len());
    while !tables.is_empty() {
        let waits = |table: &Table| {
            tables.iter().any(|other| other.relation != table.relation && table.refers_to.contains(&other.relation))
        };
        let next = tables.iter().position(|table| !waits(table)).unwrap_or(0);
        ordered.push(tables.remove(next));
    }
    ordered
}

async fn one_table(
    aside: &Session,
    target: &Session,
    table: &Table,
    other: Option<&Table>,
    writer: &mut Writer,
) -> Result<OfTable> {
    let mut of = OfTable { table: table.relation.clone(), ..OfTable::default() };
    let Some(other) = other else {
        let columns = &table.columns;
        if columns.is_empty() {
            return Ok(of);
        }
        of.note = Some("the target has no such table".to_owned());
        salvage::every_row(aside, &table.relation, columns, |values| {
            of.missing += 1;
            writer.row(&mut Place { table, columns, first: of.missing == 1 }, State::Homeless, &values)
        })
        .await?;
        return Ok(of);
    };
    let columns: Vec<String> = table.columns.iter().filter(|column| other.columns.contains(column)).cloned().collect();
    if columns.is_empty() {
        return Ok(of);
    }
    let left_out: Vec<_> = table.columns.iter().filter(|column| !columns.contains(column)).cloned().collect();
    if !left_out.is_empty() {
        of.note = Some(format!("the target has no column {}", left_out.join(", ")));
    }
    // A key that the target does not have tells no rows apart there.
    let key = if table.key.iter().all(|column| columns.contains(column)) { table.key.clone() } else { Vec::new() };
    if key.is_empty() {
        let without = "no primary key: changed rows are told as missing";
        of.note = Some(of.note.map_or_else(|| without.to_owned(), |note| format!("{note}; {without}")));
    }
    salvage::compare(aside, target, &table.relation, &columns, &key, |found| {
        let mut place = Place { table, columns: &columns, first: of.is_empty() };
        match found {
            Found::Gone => of.only_in_target += 1,
            Found::Missing(values) => {
                of.missing += 1;
                writer.row(&mut place, State::Missing, &values)?;
            }
            Found::Conflict(mine, theirs) => {
                of.conflicts += 1;
                writer.row(&mut place, State::Conflict, &mine)?;
                writer.row(&mut place, State::InTarget, &theirs)?;
            }
        }
        Ok(())
    })
    .await?;
    if of.is_empty() {
        of.note = None;
    }
    Ok(of)
}

/// Sequences that stand further in the first: the rows that are brought back may have their numbers.
fn further_sequences(aside: &[Sequence], target: &[Sequence]) -> Vec<(String, i64)> {
    let further = |one: &Sequence| {
        let there = target.iter().find(|other| other.relation == one.relation)?;
        let value = one.last_value?;
        let is_further = there.last_value.is_none_or(|now| if one.descends { value < now } else { value > now });
        is_further.then(|| (one.relation.clone(), value))
    };
    aside.iter().filter_map(further).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Missing,
    /// Missing, with its table.
    Homeless,
    Conflict,
    InTarget,
}

/// Where a row stands in the file.
struct Place<'a> {
    table: &'a Table,
    columns: &'a [String],
    /// The first of its table.
    first: bool,
}

struct Writer {
    format: Format,
    out: BufWriter<File>,
    path: PathBuf,
}

impl Writer {
    fn failed(&self, error: &std::io::Error) -> Error {
        unwritten(&self.path, error)
    }

    fn text(&mut self, text: &[u8]) -> Result<()> {
        self.out.write_all(text).map_err(|error| unwritten(&self.path, &error))
    }

    fn head(&mut self, from: &str, database: &str, encoding: &str) -> Result<()> {
        if self.format == Format::Csv {
            return Ok(());
        }
        let encoding = if encoding == "SQL_ASCII" { "SQL_ASCII" } else { "UTF8" };
        let head = format!(
            "-- Rows that `{}` has and `{}` had not at {}. Read them before you run them:\n\
             -- what the failed run itself wrote is among them. Conflicts (same key, other values) stand as comments.\n\
             begin;\nset local client_encoding = '{encoding}';\nset local standard_conforming_strings = on;\n\
             set local search_path = pg_catalog, pg_temp;\nset local datestyle = 'ISO, YMD';\nset local timezone = 'UTC';\n\
             set local intervalstyle = 'postgres';\n",
            one_line(from),
            one_line(database),
            clock::now().format("%Y-%m-%d %H:%M:%S UTC"),
        );
        self.text(head.as_bytes())
    }

    fn row(&mut self, place: &mut Place<'_>, state: State, values: &Values) -> Result<()> {
        if std::mem::take(&mut place.first) {
            self.begin_table(place, state)?;
        }
        let line = match self.format {
            Format::Csv => {
                let word = match state {
                    State::Missing | State::Homeless => "missing",
                    State::Conflict => "conflict",
                    State::InTarget => "in target",
                };
                let mut line = csv(word.as_bytes());
                line.push(b',');
                line.extend(csv(place.table.relation.as_bytes()));
                for value in values {
                    line.push(b',');
                    // Empty without quotes is NULL, as COPY … CSV has it.
                    line.extend(value.as_deref().map(csv).unwrap_or_default());
                }
                line
            }
            Format::Sql => sql_row(place, state, values),
        };
        self.text(&line)?;
        self.text(b"\n")
    }

    fn begin_table(&mut self, place: &Place<'_>, state: State) -> Result<()> {
        let relation = &place.table.relation;
        match self.format {
            Format::Csv => {
                let names = ["salvage".to_owned(), "table".to_owned()];
                let names: Vec<String> = names
                    .iter()
                    .chain(place.columns)
                    .map(|name| String::from_utf8_lossy(&csv(name.as_bytes())).into_owned())
                    .collect();
                self.text(format!("{}\n", names.join(",")).as_bytes())
            }
            Format::Sql if state == State::Homeless => self.text(
                format!("\n-- {}: the target has no such table, so its rows are comments\n", one_line(relation))
                    .as_bytes(),
            ),
            Format::Sql => self.text(format!("\n-- {}\n", one_line(relation)).as_bytes()),
        }
    }

    fn end(&mut self, further: &[(String, i64)]) -> Result<()> {
        if self.format == Format::Csv {
            return Ok(());
        }
        if !further.is_empty() {
            self.text(b"\n-- sequences that stood further\n")?;
        }
        for (relation, value) in further {
            // language=SQL
            let sql = format!("select pg_catalog.setval({}, {value});\n", quote::literal(relation).trim_start());
            self.text(sql.as_bytes())?;
        }
        self.text(b"commit;\n")
    }
}

/// An INSERT; anything but a row that is simply missing as a comment, on one line whatever its values hold.
fn sql_row(place: &Place<'_>, state: State, values: &Values) -> Vec<u8> {
    let columns: Vec<String> = place.columns.iter().map(|name| quote::ident(name)).collect();
    // language=SQL
    let mut line =
        format!("insert into {} ({}) overriding system value values (", place.table.relation, columns.join(", "))
            .into_bytes();
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            line.extend(b", ");
        }
        match value {
            None => line.extend(b"null"),
            Some(value) => {
                line.push(b'\'');
                for byte in value {
                    line.extend(std::iter::repeat_n(*byte, if *byte == b'\'' { 2 } else { 1 }));
                }
                line.push(b'\'');
            }
        }
    }
    line.extend(b");");
    let mark: &[u8] = match state {
        State::Missing => return line,
        State::Homeless => b"-- ",
        State::Conflict => b"-- conflict: ",
        State::InTarget => b"--   in target: ",
    };
    let mut comment = mark.to_vec();
    for byte in line {
        match byte {
            b'\n' => comment.extend(b"\\n"),
            b'\r' => comment.extend(b"\\r"),
            other => comment.push(other),
        }
    }
    comment
}

fn csv(value: &[u8]) -> Vec<u8> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b" ._:+-/".contains(byte) || !byte.is_ascii();
    if !value.is_empty() && value.iter().all(plain) {
        return value.to_vec();
    }
    let mut quoted = vec![b'"'];
    for byte in value {
        quoted.extend(std::iter::repeat_n(*byte, if *byte == b'"' { 2 } else { 1 }));
    }
    quoted.push(b'"');
    quoted
}

/// A name in a comment must not end it.
fn one_line(name: &str) -> String {
    name.replace(['\n', '\r'], " ")
}

fn unwritten(path: &Path, error: &std::io::Error) -> Error {
    Error::failed(format!("`{}` was not written completely", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, refers_to: &[&str]) -> Table {
        Table {
            relation: name.to_owned(),
            columns: vec!["a".to_owned()],
            key: Vec::new(),
            refers_to: refers_to.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn what_is_referred_to_comes_first() {
        let tables = vec![table("a", &["c"]), table("b", &["b"]), table("c", &["d"]), table("d", &[])];
        let order: Vec<_> = in_order(tables).into_iter().map(|table| table.relation).collect();
        assert_eq!(order, ["b", "d", "c", "a"]);
        assert_eq!(in_order(vec![table("a", &["b"]), table("b", &["a"])]).len(), 2);
    }

    #[test]
    fn nothing_in_a_value_ends_its_statement_or_comment() {
        let table = table("t", &[]);
        let columns = ["a \"b".to_owned()];
        let place = Place { table: &table, columns: &columns, first: false };
        let values = vec![Some(b"it's\n; drop table t; \\".to_vec())];
        let line = |state| String::from_utf8(sql_row(&place, state, &values)).unwrap();
        assert_eq!(
            line(State::Missing),
            "insert into t (\"a \"\"b\") overriding system value values ('it''s\n; drop table t; \\');"
        );
        assert!(!line(State::Conflict).contains('\n') && line(State::Conflict).starts_with("-- conflict: insert"));
        assert_eq!(csv(b"=1,\"x\""), b"\"=1,\"\"x\"\"\"");
        assert_eq!(csv(b""), b"\"\"");
        assert_eq!(csv(b"2024-01-01 10:00:00+00"), b"2024-01-01 10:00:00+00");
    }
}

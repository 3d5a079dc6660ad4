//! Which entries of a table of contents belong to a table. Pure; every text is UTF-8 by now.

use std::collections::{BTreeSet, HashMap};

use crate::archive::inventory::item_name;
use crate::archive::toc::Section;
use crate::archive::{Toc, TocEntry};
use crate::error::{Error, Result};
use crate::migration::dumped::{self, ColumnText, name_parts};
use crate::migration::plan::nearest;
use crate::postgres::load::Selection;

/// The tables of a dump, and how they hang together.
pub struct Tables<'a> {
    toc: &'a Toc,
    by_id: HashMap<i32, &'a TocEntry>,
    /// Partitions by their parent.
    partitions: HashMap<i32, Vec<i32>>,
    /// Children by the table that they inherit from.
    children: HashMap<i32, Vec<i32>>,
}

/// A table that was asked for, or that inherits from one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picked {
    /// Its entry.
    pub table: i32,
    /// The entries whose rows are its rows: itself and its partitions, theirs too.
    pub parts: Vec<i32>,
}

/// What a new database is to get.
#[derive(Clone, Debug, Default)]
pub struct Chosen {
    /// The entries to load.
    pub selection: Selection,
    /// Tables that come without their rows, since those asked for stand on them.
    pub definitions_only: Vec<String>,
    /// What hangs on the tables and does not come.
    pub left_out: Vec<String>,
}

impl<'a> Tables<'a> {
    /// Reads how they hang together.
    pub fn of(toc: &'a Toc) -> Tables<'a> {
        let by_id: HashMap<i32, &TocEntry> = toc.entries.iter().map(|entry| (entry.dump_id, entry)).collect();
        let mut tables = Tables { toc, by_id, partitions: HashMap::new(), children: HashMap::new() };
        for entry in &toc.entries {
            match entry.description.0.as_slice() {
                b"TABLE ATTACH" => {
                    let ends: Vec<i32> = entry.dependencies.iter().copied().filter(|id| tables.is_table(*id)).collect();
                    let child = ends.iter().copied().find(|id| tables.same_name(*id, entry));
                    let parent = ends.iter().copied().find(|id| Some(*id) != child);
                    if let (Some(child), Some(parent)) = (child, parent) {
                        tables.partitions.entry(parent).or_default().push(child);
                    }
                }
                b"TABLE" => {
                    for parent in tables.parents(entry) {
                        tables.children.entry(parent).or_default().push(entry.dump_id);
                    }
                }
                _ => {}
            }
        }
        tables
    }

    /// The entry of that number.
    pub fn entry(&self, id: i32) -> Option<&'a TocEntry> {
        self.by_id.get(&id).copied()
    }

    /// `schema.table` for people.
    pub fn name(&self, id: i32) -> String {
        self.entry(id).map(|entry| format!("{}.{}", entry.namespace.lossy(), entry.tag.lossy())).unwrap_or_default()
    }

    /// The table that a person means: a name as SQL writes it, or exactly as it is, with or without its schema.
    pub fn find(&self, typed: &str) -> Result<i32> {
        let folded = name_parts(typed);
        // A shell takes quotes away: what was typed may be the very name.
        let exact: Vec<String> = typed.split('.').map(str::to_owned).collect();
        let matches = |entry: &TocEntry, parts: &[String]| match parts {
            [table] => entry.tag.lossy() == *table,
            [schema, table] => entry.namespace.lossy() == *schema && entry.tag.lossy() == *table,
            _ => false,
        };
        for parts in folded.iter().chain([&exact, &vec![typed.to_owned()]]) {
            let found: Vec<&TocEntry> =
                self.toc.entries.iter().filter(|e| is_relation(e) && matches(e, parts)).collect();
            match found.as_slice() {
                [] => continue,
                [entry] if entry.description.0 == b"TABLE" => return Ok(entry.dump_id),
                [entry] => {
                    let kind = entry.description.lossy().to_lowercase();
                    return Err(Error::usage(format!(
                        "`{typed}` is a {kind}, and a backup holds no rows of its own of it"
                    ))
                    .hint("ripcord restore latest --into NAME brings everything back, into a new database"));
                }
                many => {
                    let names: Vec<String> = many.iter().map(|e| format!("`{}`", self.name(e.dump_id))).collect();
                    return Err(Error::usage(format!("{} relations are called `{typed}`", many.len()))
                        .because(names.join(", "))
                        .hint("name the schema as well: --table SCHEMA.TABLE"));
                }
            }
        }
        Err(self.not_found(typed))
    }

    fn not_found(&self, typed: &str) -> Error {
        let wanted = typed.to_lowercase();
        let with_schema = wanted.contains('.');
        let tables = || self.toc.entries.iter().filter(|entry| entry.description.0 == b"TABLE");
        let spelled = |entry: &TocEntry| match with_schema {
            true => self.name(entry.dump_id),
            false => entry.tag.lossy(),
        };
        let mut near: Vec<String> =
            nearest(&wanted, tables().map(spelled)).iter().map(|name| name.trim_matches('`').to_owned()).collect();
        let bare = wanted.rsplit('.').next().unwrap_or_default().trim_matches('"').to_owned();
        near.extend(tables().filter(|e| bare.len() > 2 && e.tag.lossy().to_lowercase().contains(&bare)).map(spelled));
        let unique: BTreeSet<String> = near.into_iter().take(5).map(|name| format!("`{name}`")).collect();
        let error = Error::usage(format!("the backup has no table `{typed}`"));
        let error = match unique.is_empty() {
            true => error.because(format!("it has {} tables", tables().count())),
            false => error.because(format!("near to it are {}", unique.into_iter().collect::<Vec<_>>().join(", "))),
        };
        error.hint("ripcord backup show latest lists the tables")
    }

    /// The tables asked for and those that inherit from them, each with its partitions.
    pub fn pick(&self, asked: &[i32]) -> Vec<Picked> {
        let mut seen = BTreeSet::new();
        let mut picked = Vec::new();
        let mut waiting: Vec<i32> = asked.iter().rev().copied().collect();
        while let Some(table) = waiting.pop() {
            if seen.insert(table) {
                let mut parts = Vec::new();
                self.add_parts(table, &mut parts);
                picked.push(Picked { table, parts });
                waiting.extend(self.children.get(&table).into_iter().flatten().rev());
            }
        }
        // What is a part of another one that was asked for comes with that.
        let parts: BTreeSet<i32> =
            picked.iter().flat_map(|one| one.parts.iter().copied().filter(|part| *part != one.table)).collect();
        picked.retain(|one| !parts.contains(&one.table));
        picked
    }

    fn add_parts(&self, table: i32, parts: &mut Vec<i32>) {
        if !parts.contains(&table) {
            parts.push(table);
            for partition in self.partitions.get(&table).into_iter().flatten() {
                self.add_parts(*partition, parts);
            }
        }
    }

    /// A table's columns, those that it inherits first.
    pub fn columns(&self, table: i32) -> Option<Vec<ColumnText>> {
        self.columns_within(table, 0)
    }

    fn columns_within(&self, table: i32, depth: usize) -> Option<Vec<ColumnText>> {
        const DEEPEST: usize = 64;
        if depth > DEEPEST {
            return None;
        }
        let entry = self.entry(table)?;
        let text = dumped::table(entry.definition.as_str()?)?;
        let mut columns: Vec<ColumnText> = Vec::new();
        let inherited = self.parents(entry).into_iter().map(|parent| self.columns_within(parent, depth + 1));
        for more in inherited.chain([Some(text.columns)]) {
            for column in more? {
                if !columns.iter().any(|known| known.name == column.name) {
                    columns.push(column);
                }
            }
        }
        Some(columns)
    }

    /// The statement's part that makes a table's primary key, without a name.
    pub fn primary_key(&self, table: i32) -> Option<&'a str> {
        self.toc
            .entries
            .iter()
            .filter(|entry| entry.description.0 == b"CONSTRAINT" && entry.dependencies.contains(&table))
            .find_map(|entry| dumped::primary_key(entry.definition.as_str()?))
    }

    /// What hangs on these tables: entries that depend on one of them and name it, but for its rows.
    pub fn hanging(&self, tables: &[i32]) -> Vec<&'a TocEntry> {
        let own = |entry: &&TocEntry| {
            tables.iter().filter(|id| entry.dependencies.contains(id)).any(|id| {
                self.entry(*id).is_some_and(|table| match entry.description.0.as_slice() {
                    // A foreign key of another table names that one.
                    b"FK CONSTRAINT" => {
                        entry.namespace == table.namespace
                            && entry.tag.0.starts_with(&table.tag.0)
                            && entry.tag.0.get(table.tag.0.len()) == Some(&b' ')
                    }
                    b"TABLE" | b"TABLE DATA" | b"TABLE ATTACH" | b"INDEX ATTACH" | b"VIEW" | b"MATERIALIZED VIEW"
                    | b"FUNCTION" | b"PROCEDURE" | b"AGGREGATE" => false,
                    _ => true,
                })
            })
        };
        self.toc.entries.iter().filter(own).collect()
    }

    /// What a new database gets: the tables and what they stand on, their defaults, sequences, indexes, constraints
    /// and comments; foreign keys between them. Not what acts on others or lets others in.
    pub fn choose(&self, picked: &[Picked]) -> Chosen {
        let wanted: Vec<i32> = picked.iter().flat_map(|one| one.parts.iter().copied()).collect();
        let mut set = BTreeSet::new();
        for table in &wanted {
            self.close_over(*table, &mut set);
        }
        // One may bring another: a default its sequence, a partition's index that of its parent.
        loop {
            let before = set.len();
            for entry in self.toc.entries.iter().filter(|entry| !set.contains(&entry.dump_id)).collect::<Vec<_>>() {
                if self.belongs(entry, &wanted, &set) {
                    self.close_over(entry.dump_id, &mut set);
                }
            }
            if set.len() == before {
                break;
            }
        }
        let mut chosen = Chosen::default();
        // A comment has no section of its own: it comes in that of what stands before it.
        let mut section = Section::PreData;
        for entry in &self.toc.entries {
            if entry.section != Section::None {
                section = entry.section;
            }
            if !set.contains(&entry.dump_id) {
                continue;
            }
            match section {
                Section::Data => chosen.selection.other_data.push(entry.dump_id),
                Section::PostData => chosen.selection.post_data.push(entry.dump_id),
                _ => chosen.selection.pre_data.push(entry.dump_id),
            }
            if entry.description.0 == b"TABLE" && !wanted.contains(&entry.dump_id) {
                chosen.definitions_only.push(self.name(entry.dump_id));
            }
        }
        let left = self.hanging(&wanted).into_iter().filter(|entry| !set.contains(&entry.dump_id));
        chosen.left_out = left.map(item_name).collect();
        chosen
    }

    /// Adds an entry and everything that has to be there before it.
    fn close_over(&self, id: i32, set: &mut BTreeSet<i32>) {
        let mut waiting = vec![id];
        while let Some(id) = waiting.pop() {
            let Some(entry) = self.entry(id) else { continue };
            if set.insert(id) {
                waiting.extend(entry.dependencies.iter().filter(|id| !set.contains(id)));
            }
        }
    }

    fn belongs(&self, entry: &TocEntry, wanted: &[i32], set: &BTreeSet<i32>) -> bool {
        let of_wanted = entry.dependencies.iter().any(|id| wanted.contains(id));
        let of_set = entry.dependencies.iter().any(|id| set.contains(id));
        let all_there = !entry.dependencies.is_empty() && entry.dependencies.iter().all(|id| set.contains(id));
        // What would bring another table along does not come.
        let brings_tables = || entry.dependencies.iter().any(|id| self.is_table(*id) && !set.contains(id));
        match entry.description.0.as_slice() {
            b"DEFAULT" | b"CONSTRAINT" | b"CHECK CONSTRAINT" | b"INDEX" | b"STATISTICS" => {
                of_wanted && !brings_tables()
            }
            // Of an identity column or a serial one.
            b"SEQUENCE" => of_wanted,
            b"SEQUENCE SET" => of_set,
            b"TABLE ATTACH" | b"INDEX ATTACH" | b"SEQUENCE OWNED BY" | b"FK CONSTRAINT" => all_there,
            b"COMMENT" => all_there && !entry.tag.0.starts_with(b"EXTENSION ") && !entry.tag.0.starts_with(b"SCHEMA "),
            _ => false,
        }
    }

    fn parents(&self, entry: &TocEntry) -> Vec<i32> {
        let Some(text) = entry.definition.as_str().filter(|text| text.contains("\nINHERITS (")).and_then(dumped::table)
        else {
            return Vec::new();
        };
        let find = |written: &String| {
            let parts = name_parts(written)?;
            let [schema, table] = parts.as_slice() else { return None };
            let is = |e: &&TocEntry| is_any_table(e) && e.namespace.lossy() == *schema && e.tag.lossy() == *table;
            self.toc.entries.iter().find(is).map(|entry| entry.dump_id)
        };
        text.inherits.iter().filter_map(find).collect()
    }

    fn is_table(&self, id: i32) -> bool {
        self.entry(id).is_some_and(is_any_table)
    }

    fn same_name(&self, id: i32, entry: &TocEntry) -> bool {
        self.entry(id).is_some_and(|table| table.namespace == entry.namespace && table.tag == entry.tag)
    }
}

fn is_any_table(entry: &TocEntry) -> bool {
    matches!(entry.description.0.as_slice(), b"TABLE" | b"FOREIGN TABLE")
}

fn is_relation(entry: &TocEntry) -> bool {
    is_any_table(entry) || matches!(entry.description.0.as_slice(), b"VIEW" | b"MATERIALIZED VIEW" | b"SEQUENCE")
}

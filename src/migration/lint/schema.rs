//! The schema that a folder builds, as far as text tells: tables, foreign keys, indexes, row level security.

use std::collections::BTreeMap;

use squawk_syntax::{SyntaxKind as K, SyntaxNode};

use super::super::tree::{child, each, has, name, name_among, with_tree};
use super::super::{Migration, Script};

/// What a folder of migrations leaves behind, each thing with where it was made.
#[derive(Debug, Default)]
pub(super) struct Schema {
    tables: BTreeMap<String, Table>,
    /// Names that people chose, for the conventions.
    pub names: Vec<(Place, Named)>,
}

/// Which migration, and the byte offset in its UP.
pub(super) type Place = (usize, usize);

#[derive(Debug)]
struct Table {
    made: Place,
    secured: bool,
    foreign_keys: Vec<(Place, Vec<String>)>,
    indexes: Vec<Vec<String>>,
}

/// A name and what it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Table(String),
    Column(String, String),
    Index(String, String),
    ForeignKey(String, String),
}

/// What a statement does to the schema.
#[derive(Debug)]
enum Change {
    Create { table: String, temporary: bool, partition: bool },
    Drop(String),
    Rename(String, String),
    Secure(String),
    ForeignKey(String, Vec<String>),
    Index(String, Vec<String>),
    Name(Named),
}

impl Schema {
    /// Applies every UP in order.
    pub fn of(migrations: &[Migration]) -> Schema {
        let mut schema = Schema::default();
        for (number, changes) in each(migrations, |migration| changes(&migration.up)).into_iter().enumerate() {
            for (offset, change) in changes {
                schema.apply((number, offset), change);
            }
        }
        schema
    }

    fn apply(&mut self, place: Place, change: Change) {
        match change {
            Change::Create { temporary: true, .. } => {}
            // Policies and foreign keys of a partitioned table hold for its partitions.
            Change::Create { partition: true, .. } => {}
            Change::Create { table, .. } => {
                let made = Table { made: place, secured: false, foreign_keys: Vec::new(), indexes: Vec::new() };
                self.tables.entry(table).or_insert(made);
            }
            Change::Drop(table) => {
                self.tables.remove(&table);
            }
            Change::Rename(old, new) => {
                if let Some(table) = self.tables.remove(&old) {
                    self.tables.insert(new, table);
                }
            }
            Change::Secure(table) => {
                if let Some(table) = self.tables.get_mut(&table) {
                    table.secured = true;
                }
            }
            Change::ForeignKey(table, columns) => {
                if let Some(table) = self.tables.get_mut(&table) {
                    table.foreign_keys.push((place, columns));
                }
            }
            Change::Index(table, columns) => {
                if let Some(table) = self.tables.get_mut(&table) {
                    table.indexes.push(columns);
                }
            }
            Change::Name(named) => self.names.push((place, named)),
        }
    }

    /// Tables that were made and not taken away, with where they were made.
    pub fn made(&self) -> impl Iterator<Item = (Place, &str)> {
        self.tables.iter().map(|(name, table)| (table.made, name.as_str()))
    }

    /// Foreign keys whose columns no index begins with, in whatever order.
    pub fn bare_foreign_keys(&self) -> impl Iterator<Item = (Place, &str, &[String])> {
        self.tables.iter().flat_map(|(name, table)| {
            let bare = table
                .foreign_keys
                .iter()
                .filter(|(_, columns)| !table.indexes.iter().any(|index| serves(index, columns)));
            bare.map(move |(place, columns)| (*place, name.as_str(), columns.as_slice()))
        })
    }

    /// Tables without row level security.
    pub fn open_tables(&self) -> impl Iterator<Item = (Place, &str)> {
        self.tables.iter().filter(|(_, table)| !table.secured).map(|(name, table)| (table.made, name.as_str()))
    }
}

fn serves(index: &[String], columns: &[String]) -> bool {
    let leading = index.get(..columns.len()).unwrap_or_default();
    !leading.is_empty() && columns.iter().all(|column| leading.contains(column))
}

fn changes(script: &Script) -> Vec<(usize, Change)> {
    let mut found = Vec::new();
    for statement in script.statements.iter().filter(|statement| may_change(script.text(statement))) {
        let made = with_tree(script.text(statement), |root, _| {
            root.first_child().map(|node| of_statement(&node)).unwrap_or_default()
        });
        found.extend(made.unwrap_or_default().into_iter().map(|(at, change)| (statement.start + at, change)));
    }
    found
}

/// What its first word tells without a tree.
fn may_change(statement: &str) -> bool {
    let word: String = statement.chars().take_while(char::is_ascii_alphabetic).collect();
    ["create", "alter", "drop"].iter().any(|known| word.eq_ignore_ascii_case(known))
}

fn of_statement(node: &SyntaxNode) -> Vec<(usize, Change)> {
    match node.kind() {
        K::CREATE_TABLE => create_table(node),
        K::ALTER_TABLE => alter_table(node),
        K::CREATE_INDEX => create_index(node),
        K::DROP_TABLE => {
            let tables = node.children().filter(|child| child.kind() == K::TABLE_NAME_REF);
            tables.map(|table| (at(node), Change::Drop(key(&name(&table))))).collect()
        }
        _ => Vec::new(),
    }
}

fn create_table(node: &SyntaxNode) -> Vec<(usize, Change)> {
    let Some(table) = name_among(node, &[K::TABLE_NAME]).map(|name| key(&name)) else { return Vec::new() };
    let temporary = child(node, K::TEMP).is_some();
    let partition = has(node, K::PARTITION_OF);
    let mut found = vec![(at(node), Change::Create { table: table.clone(), temporary, partition })];
    if temporary {
        return found;
    }
    found.push((at(node), Change::Name(Named::Table(table.clone()))));
    for part in child(node, K::TABLE_ARG_LIST).iter().flat_map(SyntaxNode::children) {
        if part.kind() == K::COLUMN {
            column(&table, &part, &mut found);
        } else {
            constraint(&table, &part, &mut found);
        }
    }
    found
}

fn column(table: &str, node: &SyntaxNode, found: &mut Vec<(usize, Change)>) {
    let Some(column) = name_among(node, &[K::COLUMN_NAME]) else { return };
    found.push((at(node), Change::Name(Named::Column(table.to_owned(), column.clone()))));
    for clause in node.children() {
        match clause.kind() {
            K::REFERENCES_CONSTRAINT => {
                found.push((at(&clause), Change::ForeignKey(table.to_owned(), vec![column.clone()])));
                named_key(table, &clause, found);
            }
            K::PRIMARY_KEY_CONSTRAINT | K::UNIQUE_CONSTRAINT => {
                found.push((at(&clause), Change::Index(table.to_owned(), vec![column.clone()])));
            }
            _ => {}
        }
    }
}

fn constraint(table: &str, node: &SyntaxNode, found: &mut Vec<(usize, Change)>) {
    match node.kind() {
        K::FOREIGN_KEY_CONSTRAINT => {
            if let Some(columns) = child(node, K::FOREIGN_KEY_COLUMN_LIST) {
                found.push((at(node), Change::ForeignKey(table.to_owned(), columns_of(&columns))));
            }
            named_key(table, node, found);
        }
        K::PRIMARY_KEY_CONSTRAINT | K::UNIQUE_CONSTRAINT | K::EXCLUDE_CONSTRAINT => {
            found.push((at(node), Change::Index(table.to_owned(), columns_of(node))));
        }
        _ => {}
    }
}

fn named_key(table: &str, node: &SyntaxNode, found: &mut Vec<(usize, Change)>) {
    if let Some(clause) = child(node, K::CONSTRAINT_NAME_CLAUSE)
        && let Some(name) = name_among(&clause, &[K::CONSTRAINT_NAME])
    {
        found.push((at(node), Change::Name(Named::ForeignKey(table.to_owned(), name))));
    }
}

fn alter_table(node: &SyntaxNode) -> Vec<(usize, Change)> {
    let Some(table) = name_among(node, &[K::TABLE_RELATION_NAME]).map(|name| key(&name)) else { return Vec::new() };
    let mut found = Vec::new();
    for action in node.children() {
        match action.kind() {
            K::ADD_COLUMN => column(&table, &action, &mut found),
            K::ADD_CONSTRAINT => {
                for made in action.children() {
                    constraint(&table, &made, &mut found);
                }
            }
            K::ENABLE_RLS => found.push((at(node), Change::Secure(table.clone()))),
            // What it is called then is no matter here: it is another schema's.
            K::SET_SCHEMA => found.push((at(node), Change::Drop(table.clone()))),
            K::TABLE_RENAME_TO => {
                if let Some(new) = name_among(&action, &[K::TABLE_NAME]) {
                    found.push((at(node), Change::Rename(table.clone(), key(&new))));
                }
            }
            _ => {}
        }
    }
    found
}

fn create_index(node: &SyntaxNode) -> Vec<(usize, Change)> {
    let Some(table) = name_among(node, &[K::TABLE_RELATION_NAME]).map(|name| key(&name)) else { return Vec::new() };
    let items = child(node, K::PARTITION_ITEM_LIST);
    let columns = items.iter().flat_map(SyntaxNode::children).map(|item| item.text().to_string());
    let columns = columns.map(|item| item.split_whitespace().next().unwrap_or_default().trim_matches('"').to_owned());
    let mut found = vec![(at(node), Change::Index(table.clone(), columns.collect()))];
    if let Some(index) = name_among(node, &[K::INDEX]) {
        found.push((at(node), Change::Name(Named::Index(table, index))));
    }
    found
}

fn columns_of(node: &SyntaxNode) -> Vec<String> {
    let columns = node.descendants().filter(|child| child.kind() == K::COLUMN_NAME_REF);
    columns.map(|column| name(&column).trim_matches('"').to_owned()).collect()
}

fn at(node: &SyntaxNode) -> usize {
    let first = node.descendants_with_tokens().filter_map(|element| element.into_token());
    let first = first.into_iter().find(|token| !matches!(token.kind(), K::WHITESPACE | K::COMMENT));
    first.map_or(0, |token| usize::from(token.text_range().start()))
}

/// The schema that is meant when none is written.
fn key(table: &str) -> String {
    table.strip_prefix("public.").unwrap_or(table).to_owned()
}

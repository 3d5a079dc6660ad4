//! What a statement locks, by parsing it: which table, how strongly, and whether it works through its rows.
//!
//! The modes are those of PostgreSQL's documentation (<https://www.postgresql.org/docs/15/explicit-locking.html>, and
//! the page of each statement, ALTER TABLE's above all). A test runs every kind of statement on real servers and
//! compares with `pg_locks`. What a text does not tell is said to be not known, and never guessed.

mod alter_table;

use serde::{Deserialize, Serialize};
use squawk_syntax::{SyntaxKind as K, SyntaxNode};

use super::functions::calls;
use super::lexer::{Kind, Lexer};
use super::tree::{child, has, name, name_among, with_tree};
use super::{Parsed, Script, Statement};

/// The modes of `LOCK`, the weakest first, by the names that `pg_locks` gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Mode {
    AccessShareLock,
    RowShareLock,
    RowExclusiveLock,
    ShareUpdateExclusiveLock,
    ShareLock,
    ShareRowExclusiveLock,
    ExclusiveLock,
    AccessExclusiveLock,
}

impl Mode {
    /// As `pg_locks` names it.
    pub fn name(self) -> String {
        format!("{self:?}")
    }
}

/// What becomes of the rows of a table while it is locked. The worst comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// They are not looked at.
    Untouched,
    /// A query, or a change of rows: its plan decides what it reads.
    Query,
    /// All are read.
    Scanned,
    /// The statement does not tell; in which case what happens.
    Depends(&'static str),
    /// The table is emptied, or gone.
    Emptied,
    /// All are written anew, the indexes too.
    Rewritten,
}

/// What a lock is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// The table, view or index of that name.
    Itself,
    /// The table that the index of that name belongs to.
    TableOfIndex,
}

/// One lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The name as the catalog spells it, with a schema where the statement has one.
    pub name: String,
    /// What of that name.
    pub on: On,
    /// How strongly.
    pub mode: Mode,
    /// What becomes of the rows.
    pub work: Work,
}

/// What a statement locks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touch {
    /// The strongest lock on each table that its text names.
    pub held: Vec<Held>,
    /// Why it may lock more.
    pub not_known: Vec<String>,
    /// It changes rows: triggers may fire.
    pub fires: bool,
    /// It also locks, as strongly, each table that a foreign key ties to those that it names.
    pub ties: bool,
}

impl Touch {
    fn hold(&mut self, name: String, mode: Mode, work: Work) {
        self.hold_on(name, On::Itself, mode, work);
    }

    fn hold_on(&mut self, name: String, on: On, mode: Mode, work: Work) {
        match self.held.iter_mut().find(|held| held.name == name && held.on == on) {
            Some(held) => {
                held.mode = held.mode.max(mode);
                held.work = held.work.max(work);
            }
            None => self.held.push(Held { name, on, mode, work }),
        }
    }

    fn unknown(&mut self, why: impl Into<String>) {
        self.not_known.push(why.into());
    }
}

/// What a statement of a script locks.
pub fn touches(script: &Script, statement: &Statement) -> Touch {
    let text = script.text(statement);
    if statement.effect.controls_transaction {
        return Touch::default();
    }
    let mut touch = with_tree(&shortened(text, &statement.parsed), |root, problems| {
        let mut statements = root.children().filter(|node| node.kind() != K::EMPTY_STMT);
        let node = statements.next().filter(|_| problems.is_empty())?;
        let mut touch = Touch::default();
        look(&node, &mut touch);
        Some(touch)
    })
    .flatten()
    .unwrap_or_else(|| Touch { not_known: vec!["ripcord's parser does not know it".to_owned()], ..Touch::default() });
    if statement.effect.unknown && touch.not_known.is_empty() {
        touch.unknown("it runs code that its text does not hold");
    }
    touch
}

/// Of an INSERT of nothing but literals, which may be long, what comes before them.
fn shortened(text: &str, parsed: &Parsed) -> String {
    if *parsed != Parsed::NotAsked {
        return text.to_owned();
    }
    let values = Lexer::new(text)
        .map_while(Result::ok)
        .find(|token| token.kind == Kind::Word && token.text(text).eq_ignore_ascii_case("values"));
    let head = values.and_then(|token| text.get(..token.start));
    head.map_or_else(|| text.to_owned(), |head| format!("{head}VALUES (1)"))
}

fn look(node: &SyntaxNode, touch: &mut Touch) {
    use Mode::*;
    use Work::*;
    if has(node, K::CASCADE) {
        touch.unknown("CASCADE: what hangs on it is locked as well");
    }
    let concurrently = says(node, K::CONCURRENTLY_KW);
    match node.kind() {
        K::ALTER_TABLE => alter_table::look(node, touch),
        K::CREATE_TABLE => create_table(node, touch),
        K::CREATE_INDEX => {
            let mode = if concurrently { ShareUpdateExclusiveLock } else { ShareLock };
            each(node, &[K::TABLE_RELATION_NAME], |table| touch.hold(table, mode, Scanned));
            tell_calls(node, touch);
        }
        K::DROP_INDEX => {
            let mode = if concurrently { ShareUpdateExclusiveLock } else { AccessExclusiveLock };
            each(node, &[K::INDEX_REF], |index| touch.hold_on(index, On::TableOfIndex, mode, Untouched));
        }
        K::REINDEX => reindex(node, touch),
        K::DROP_TABLE => {
            touch.ties = true;
            each(node, &[K::TABLE_NAME_REF], |table| touch.hold(table, AccessExclusiveLock, Emptied));
        }
        K::TRUNCATE => {
            touch.fires = true;
            for tables in node.children().filter(|child| child.kind() == K::TABLE_LIST) {
                each(&tables, &[K::TABLE_RELATION_NAME], |table| touch.hold(table, AccessExclusiveLock, Emptied));
            }
        }
        K::DROP_VIEW | K::DROP_MATERIALIZED_VIEW => {
            each(node, &[K::VIEW_REF], |view| touch.hold(view, AccessExclusiveLock, Untouched));
        }
        K::ALTER_VIEW | K::ALTER_MATERIALIZED_VIEW
            if node.children().any(|one| matches!(one.kind(), K::VIEW_RENAME_TO | K::SET_SCHEMA | K::OWNER_TO)) =>
        {
            each(node, &[K::VIEW_REF], |view| touch.hold(view, AccessExclusiveLock, Untouched));
        }
        K::ALTER_INDEX if has(node, K::INDEX_RENAME_TO) => {
            each(node, &[K::INDEX_REF], |index| touch.hold(index, ShareUpdateExclusiveLock, Untouched));
        }
        K::CREATE_VIEW => {
            reads(node, touch);
            if has(node, K::OR_REPLACE) {
                each(node, &[K::VIEW], |view| touch.hold(view, AccessExclusiveLock, Untouched));
            }
        }
        K::CREATE_TABLE_AS | K::CREATE_MATERIALIZED_VIEW => query(node, touch),
        K::REFRESH => {
            let (mode, work) = if concurrently { (ExclusiveLock, Query) } else { (AccessExclusiveLock, Rewritten) };
            each(node, &[K::VIEW_REF], |view| touch.hold(view, mode, work));
            touch.unknown("the tables that its query reads");
        }
        K::CREATE_TRIGGER => on_relation(node, ShareRowExclusiveLock, touch),
        K::DROP_TRIGGER
        | K::ALTER_TRIGGER
        | K::CREATE_POLICY
        | K::ALTER_POLICY
        | K::DROP_POLICY
        | K::CREATE_RULE
        | K::DROP_RULE => on_relation(node, AccessExclusiveLock, touch),
        K::CREATE_STATISTICS => on_relation(node, ShareUpdateExclusiveLock, touch),
        K::COMMENT_ON => comment(node, touch),
        K::LOCK => lock(node, touch),
        K::VACUUM => {
            let (mode, work) =
                if is_full(node) { (AccessExclusiveLock, Rewritten) } else { (ShareUpdateExclusiveLock, Scanned) };
            listed(node, mode, work, touch);
        }
        K::ANALYZE => listed(node, ShareUpdateExclusiveLock, Query, touch),
        K::CLUSTER => match name_among(node, &[K::TABLE_NAME_REF]) {
            Some(table) => touch.hold(table, AccessExclusiveLock, Rewritten),
            None => touch.unknown("every table that was clustered before"),
        },
        K::COPY => {
            let into = has(node, K::COPY_FROM);
            touch.fires = into;
            let mode = if into { RowExclusiveLock } else { AccessShareLock };
            for table in node.children().filter(|child| child.kind() == K::COPY_TABLE) {
                each(&table, &[K::TABLE_NAME_REF], |table| touch.hold(table, mode, Query));
            }
            query(node, touch);
        }
        K::INSERT
        | K::UPDATE
        | K::DELETE
        | K::MERGE
        | K::SELECT
        | K::SELECT_INTO
        | K::COMPOUND_SELECT
        | K::PAREN_SELECT
        | K::VALUES
        | K::TABLE
        | K::DECLARE => query(node, touch),
        K::EXPLAIN => match node.last_child() {
            Some(explained) => look(&explained, touch),
            None => touch.unknown("what it explains"),
        },
        K::DO => touch.unknown("a DO block: what it runs is its own text's to know"),
        K::CALL => touch.unknown("a procedure: what it locks is its own text's to know"),
        kind if locks_no_table(node, kind) => {}
        _ => touch.unknown("what a statement of this kind locks"),
    }
}

/// Statements that lock no table, or only read its name.
fn locks_no_table(node: &SyntaxNode, kind: K) -> bool {
    match kind {
        K::ALTER_TYPE => has(node, K::ADD_VALUE) || has(node, K::RENAME_VALUE),
        K::CREATE_SCHEMA => node.children().all(|child| matches!(child.kind(), K::NAMED_SCHEMA | K::IF_NOT_EXISTS)),
        // Without CASCADE they go only when no table uses them.
        K::DROP_FUNCTION | K::DROP_PROCEDURE | K::DROP_TYPE | K::DROP_DOMAIN | K::DROP_SCHEMA | K::DROP_SEQUENCE => {
            !has(node, K::CASCADE)
        }
        K::CREATE_FUNCTION
        | K::CREATE_PROCEDURE
        | K::CREATE_TYPE
        | K::CREATE_DOMAIN
        | K::CREATE_SEQUENCE
        | K::CREATE_ROLE
        | K::ALTER_FUNCTION
        | K::ALTER_ROLE
        | K::DROP_ROLE
        | K::GRANT
        | K::REVOKE
        | K::ALTER_DEFAULT_PRIVILEGES
        | K::SET
        | K::RESET
        | K::SHOW
        | K::NOTIFY
        | K::LISTEN
        | K::UNLISTEN
        | K::SAVEPOINT_CREATE
        | K::RELEASE_SAVEPOINT => true,
        _ => false,
    }
}

/// New tables are nobody's to wait for; those that they refer to, or are made after, are.
fn create_table(node: &SyntaxNode, touch: &mut Touch) {
    use Mode::*;
    let made = name_among(node, &[K::TABLE_NAME]).unwrap_or_default();
    for part in node.descendants() {
        let mode = match part.kind() {
            K::REFERENCES_CONSTRAINT | K::FOREIGN_KEY_CONSTRAINT => ShareRowExclusiveLock,
            K::INHERITS => ShareUpdateExclusiveLock,
            K::PARTITION_OF => AccessExclusiveLock,
            K::LIKE_CLAUSE => AccessShareLock,
            _ => continue,
        };
        if part.kind() == K::PARTITION_OF {
            touch.unknown("the table's default partition, where there is one, which is locked as strongly and read");
        }
        each(&part, &[K::TABLE_NAME_REF, K::RELATION_NAME_REF], |table| {
            if table != made {
                touch.hold(table, mode, Work::Untouched);
            }
        });
    }
}

fn reindex(node: &SyntaxNode, touch: &mut Touch) {
    let options = child(node, K::REINDEX_OPTION_LIST);
    let concurrently = node.descendants_with_tokens().any(|one| one.kind() == K::CONCURRENTLY_KW)
        && options.is_none_or(|options| !off(&options));
    let mode = if concurrently { Mode::ShareUpdateExclusiveLock } else { Mode::ShareLock };
    if let Some(target) = child(node, K::REINDEX_TARGET_TABLE) {
        each(&target, &[K::TABLE_NAME_REF], |table| touch.hold(table, mode, Work::Scanned));
    } else if let Some(target) = child(node, K::REINDEX_TARGET_INDEX) {
        each(&target, &[K::INDEX_REF], |index| touch.hold_on(index, On::TableOfIndex, mode, Work::Scanned));
    } else {
        touch.unknown("every table of the schema or the database");
    }
}

/// An option that is written out and switched off: `(full false)`.
fn off(options: &SyntaxNode) -> bool {
    let text = options.text().to_string().to_ascii_lowercase();
    ["false", "off", " 0"].iter().any(|word| text.contains(word))
}

fn is_full(node: &SyntaxNode) -> bool {
    let named = |options: &SyntaxNode| options.text().to_string().to_ascii_lowercase().contains("full");
    says(node, K::FULL_KW)
        || child(node, K::VACUUM_OPTION_LIST).is_some_and(|options| named(&options) && !off(&options))
}

/// `VACUUM a, b`, `ANALYZE a (column)`.
fn listed(node: &SyntaxNode, mode: Mode, work: Work, touch: &mut Touch) {
    let Some(list) = child(node, K::TABLE_AND_COLUMNS_LIST) else {
        return touch.unknown("every table of the database");
    };
    for one in list.children() {
        each(&one, &[K::TABLE_RELATION_NAME], |table| touch.hold(table, mode, work));
    }
}

fn on_relation(node: &SyntaxNode, mode: Mode, touch: &mut Touch) {
    for part in node.children() {
        if matches!(part.kind(), K::ON_RELATION | K::ON_TABLE | K::RULE_ON | K::FROM_TABLE) {
            let kinds = [K::RELATION_NAME_REF, K::TABLE_NAME_REF];
            each(&part, &kinds, |table| touch.hold(table, mode, Work::Untouched));
        }
    }
}

fn comment(node: &SyntaxNode, touch: &mut Touch) {
    let Some(object) = node.first_child() else { return };
    let Some(named) = object.first_child().map(|named| name(&named)) else { return };
    let table = match object.kind() {
        K::OBJECT_TABLE | K::OBJECT_VIEW | K::OBJECT_MATERIALIZED_VIEW | K::OBJECT_INDEX => named,
        K::OBJECT_COLUMN => match named.rsplit_once('.') {
            Some((table, _)) => table.to_owned(),
            None => return,
        },
        _ => return,
    };
    touch.hold(table, Mode::ShareUpdateExclusiveLock, Work::Untouched);
}

fn lock(node: &SyntaxNode, touch: &mut Touch) {
    let words = child(node, K::LOCK_MODE_CLAUSE).map(|mode| mode.text().to_string().to_ascii_lowercase());
    let words = words.as_deref().map(|words| words.split_whitespace().collect::<Vec<_>>()).unwrap_or_default();
    let mode = match words.as_slice() {
        ["in", mode @ .., "mode"] => match mode {
            ["access", "share"] => Mode::AccessShareLock,
            ["row", "share"] => Mode::RowShareLock,
            ["row", "exclusive"] => Mode::RowExclusiveLock,
            ["share", "update", "exclusive"] => Mode::ShareUpdateExclusiveLock,
            ["share"] => Mode::ShareLock,
            ["share", "row", "exclusive"] => Mode::ShareRowExclusiveLock,
            ["exclusive"] => Mode::ExclusiveLock,
            _ => Mode::AccessExclusiveLock,
        },
        _ => Mode::AccessExclusiveLock,
    };
    for list in node.children().filter(|one| one.kind() == K::RELATION_LIST) {
        each(&list, &[K::RELATION_NAME], |table| touch.hold(table, mode, Work::Untouched));
    }
}

/// A query or a change of rows, with what WITH and subqueries do.
fn query(node: &SyntaxNode, touch: &mut Touch) {
    reads(node, touch);
    for part in std::iter::once(node.clone()).chain(node.descendants()) {
        if matches!(part.kind(), K::INSERT | K::UPDATE | K::DELETE | K::MERGE) {
            touch.fires = true;
            let kinds = [K::RELATION_NAME_REF, K::RELATION_NAME, K::TABLE_RELATION_NAME];
            if let Some(table) = name_among(&part, &kinds) {
                touch.hold(table, Mode::RowExclusiveLock, Work::Query);
            }
        }
    }
    tell_calls(node, touch);
}

/// The tables that FROM and its kin name. What a view among them reads is read as well, and as harmlessly.
fn reads(node: &SyntaxNode, touch: &mut Touch) {
    let ctes: Vec<String> = node.descendants().filter(|one| one.kind() == K::CTE_NAME).map(|cte| name(&cte)).collect();
    for part in std::iter::once(node.clone()).chain(node.descendants()) {
        if !matches!(part.kind(), K::RELATION_FROM_ITEM | K::TABLE) {
            continue;
        }
        let select = part.ancestors().find(|one| matches!(one.kind(), K::SELECT | K::SELECT_INTO));
        let of = select.and_then(|select| child(&select, K::LOCKING_CLAUSE));
        let mode = if of.is_some() { Mode::RowShareLock } else { Mode::AccessShareLock };
        each(&part, &[K::RELATION_NAME_REF, K::RELATION_NAME], |table| {
            if !ctes.contains(&table) {
                touch.hold(table, mode, Work::Query);
            }
        });
    }
}

fn tell_calls(node: &SyntaxNode, touch: &mut Touch) {
    if let Some(function) = calls(node).unknown {
        touch.unknown(format!("the function `{function}`: what it locks is its own text's to know"));
    }
}

/// Calls `found` with the name of each child of one of these kinds.
fn each(node: &SyntaxNode, kinds: &[K], mut found: impl FnMut(String)) {
    node.children().filter(|one| kinds.contains(&one.kind())).for_each(|one| found(name(&one)));
}

/// Whether a word is the node's own.
fn says(node: &SyntaxNode, word: K) -> bool {
    node.children_with_tokens().any(|one| one.kind() == word)
}

#[cfg(test)]
mod tests;

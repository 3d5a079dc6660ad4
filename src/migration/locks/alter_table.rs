//! ALTER TABLE, action by action. <https://www.postgresql.org/docs/15/sql-altertable.html>

use squawk_syntax::{SyntaxKind as K, SyntaxNode};

use super::super::functions::is_constant;
use super::super::tree::{child, has, name, name_among};
use super::{Mode, Touch, Work, each, tell_calls};

/// Types of PostgreSQL that are no domain, so that no constraint of theirs is checked.
const BUILT_IN: &[&str] = &[
    "bigint",
    "bit",
    "bool",
    "boolean",
    "bytea",
    "char",
    "character",
    "cidr",
    "date",
    "decimal",
    "double",
    "float",
    "float4",
    "float8",
    "inet",
    "int",
    "int2",
    "int4",
    "int8",
    "integer",
    "interval",
    "json",
    "jsonb",
    "macaddr",
    "money",
    "numeric",
    "real",
    "smallint",
    "text",
    "time",
    "timestamp",
    "timestamptz",
    "timetz",
    "tsvector",
    "uuid",
    "varchar",
    "xml",
];

/// Functions without arguments whose value is the same in all of a statement, so that it is kept once.
const STABLE: &[&str] = &["now", "statement_timestamp", "transaction_timestamp"];

pub(super) fn look(node: &SyntaxNode, touch: &mut Touch) {
    let Some(table) = name_among(node, &[K::TABLE_RELATION_NAME]) else {
        return touch.unknown("every table of the tablespace");
    };
    // The strongest of its actions decides.
    for action in node.children().filter(|one| !matches!(one.kind(), K::TABLE_RELATION_NAME | K::IF_EXISTS)) {
        match of_action(&action, touch) {
            Some((mode, work)) => touch.hold(table.clone(), mode, work),
            None => touch.unknown(format!("what `{}` locks", name_of(&action))),
        }
    }
    tell_calls(node, touch);
}

/// `SET_ACCESS_METHOD` → `SET ACCESS METHOD`.
fn name_of(action: &SyntaxNode) -> String {
    format!("{:?}", action.kind()).replace('_', " ")
}

/// The mode of one action and what becomes of the rows. `None`: not known.
fn of_action(action: &SyntaxNode, touch: &mut Touch) -> Option<(Mode, Work)> {
    use Mode::*;
    use Work::*;
    if has(action, K::CASCADE) {
        touch.unknown("CASCADE: what hangs on it is locked as well");
    }
    Some(match action.kind() {
        K::ADD_COLUMN => (AccessExclusiveLock, added_column(action, touch)),
        K::ALTER_COLUMN => altered_column(action)?,
        K::ADD_CONSTRAINT => added_constraint(action, touch)?,
        K::VALIDATE_CONSTRAINT => {
            touch.unknown("of a foreign key, the table that it refers to (RowShareLock, which keeps nobody out)");
            (ShareUpdateExclusiveLock, Scanned)
        }
        K::DROP_CONSTRAINT => {
            touch.unknown("of a foreign key, the table that it refers to (AccessExclusiveLock)");
            (AccessExclusiveLock, Untouched)
        }
        K::DROP_COLUMN => {
            touch.unknown("of a foreign key on the column, the table that it refers to (AccessExclusiveLock)");
            (AccessExclusiveLock, Untouched)
        }
        K::ENABLE_TRIGGER | K::DISABLE_TRIGGER | K::ENABLE_ALWAYS_TRIGGER | K::ENABLE_REPLICA_TRIGGER => {
            (ShareRowExclusiveLock, Untouched)
        }
        K::CLUSTER_ON | K::SET_WITHOUT_CLUSTER => (ShareUpdateExclusiveLock, Untouched),
        K::SET_OPTIONS | K::RESET_OPTIONS => (options(action)?, Untouched),
        K::INHERIT_TABLE => {
            each(action, &[K::TABLE_NAME_REF], |of| touch.hold(of, ShareUpdateExclusiveLock, Untouched));
            (AccessExclusiveLock, Untouched)
        }
        K::NO_INHERIT_TABLE => {
            each(action, &[K::TABLE_NAME_REF], |of| touch.hold(of, AccessShareLock, Untouched));
            (AccessExclusiveLock, Untouched)
        }
        K::ATTACH_PARTITION => {
            let unless = Depends("all are read, unless a valid CHECK already proves that they belong there");
            each(action, &[K::TABLE_NAME_REF], |of| touch.hold(of, AccessExclusiveLock, unless));
            touch.unknown("the table's default partition, where there is one, which is locked as strongly and read");
            (ShareUpdateExclusiveLock, Untouched)
        }
        K::DETACH_PARTITION => {
            let parent =
                if has(action, K::DETACH_CONCURRENTLY) { ShareUpdateExclusiveLock } else { AccessExclusiveLock };
            each(action, &[K::TABLE_NAME_REF], |of| touch.hold(of, AccessExclusiveLock, Untouched));
            (parent, Untouched)
        }
        K::SET_TABLESPACE => (AccessExclusiveLock, Depends("written anew, unless it is in that tablespace already")),
        K::SET_LOGGED | K::SET_UNLOGGED => (AccessExclusiveLock, Depends("written anew, unless it is so already")),
        K::SET_ACCESS_METHOD => (AccessExclusiveLock, Depends("written anew, unless it has that method already")),
        K::OWNER_TO
        | K::SET_SCHEMA
        | K::TABLE_RENAME_TO
        | K::RENAME_COLUMN
        | K::RENAME_CONSTRAINT
        | K::ENABLE_RLS
        | K::DISABLE_RLS
        | K::FORCE_RLS
        | K::NO_FORCE_RLS
        | K::REPLICA_IDENTITY
        | K::ENABLE_RULE
        | K::DISABLE_RULE => (AccessExclusiveLock, Untouched),
        _ => return None,
    })
}

fn added_column(action: &SyntaxNode, touch: &mut Touch) -> Work {
    let typed = child(action, K::PATH_TYPE).map(|kind| name(&kind)).unwrap_or_default();
    let plain = typed.trim_start_matches("pg_catalog.").split(['(', '[']).next().unwrap_or_default();
    let generated = child(action, K::GENERATED_CONSTRAINT);
    let mut work = Work::Untouched;
    if let Some(generated) = generated {
        let identity = generated.children().any(|one| one.kind() == K::GENERATED_IDENTITY);
        let stored = generated.descendants().any(|one| one.kind() == K::STORED);
        // A virtual column, from PostgreSQL 18, holds nothing.
        work = if identity || stored { Work::Rewritten } else { Work::Untouched };
    } else if plain.contains("serial") {
        work = Work::Rewritten;
    } else if let Some(default) = child(action, K::DEFAULT_CONSTRAINT) {
        work = default_of(&default);
    }
    // Types with words of their own (double precision, timestamp with time zone) have nodes of their own.
    if work == Work::Untouched && !plain.is_empty() && !BUILT_IN.contains(&plain) {
        work = Work::Depends("written anew where its type is a domain with constraints");
    }
    let has_value = has(action, K::DEFAULT_CONSTRAINT);
    for part in action.children() {
        work = work.max(match part.kind() {
            K::NOT_NULL_CONSTRAINT if !has_value => Work::Depends("all are read, and there must be none"),
            K::UNIQUE_CONSTRAINT | K::PRIMARY_KEY_CONSTRAINT | K::CHECK_CONSTRAINT => Work::Scanned,
            K::REFERENCES_CONSTRAINT => {
                let checked = if has_value { Work::Scanned } else { Work::Untouched };
                each(&part, &[K::TABLE_NAME_REF], |of| touch.hold(of, Mode::ShareRowExclusiveLock, checked));
                checked
            }
            _ => Work::Untouched,
        });
    }
    work
}

/// A default that has one value for all rows is kept once; one that has not is computed for each.
fn default_of(default: &SyntaxNode) -> Work {
    let text = default.text().to_string().to_ascii_lowercase();
    let text = text.trim_start_matches("default").trim();
    let stable = STABLE.iter().any(|function| text == format!("{function}()"))
        || ["current_timestamp", "current_date", "localtimestamp"].contains(&text);
    if stable || is_constant(default) {
        return Work::Untouched;
    }
    let volatile = ["random()", "gen_random_uuid()", "clock_timestamp()", "nextval("];
    if volatile.iter().any(|function| text.starts_with(function)) {
        return Work::Rewritten;
    }
    Work::Depends("written anew where the default is volatile")
}

fn altered_column(action: &SyntaxNode) -> Option<(Mode, Work)> {
    use Mode::*;
    use Work::*;
    let change = action.children().find(|one| !matches!(one.kind(), K::COLUMN_NAME_REF | K::COLUMN_NAME))?;
    Some(match change.kind() {
        K::SET_TYPE => {
            let same =
                "written anew with its indexes, unless the old type is the same in bytes (as varchar(20) is text)";
            (AccessExclusiveLock, Depends(same))
        }
        K::SET_NOT_NULL => {
            let proved = "all are read, unless a valid CHECK already proves that there is no null";
            (AccessExclusiveLock, Depends(proved))
        }
        K::SET_EXPRESSION => (AccessExclusiveLock, Depends("written anew where the column is stored")),
        K::SET_STATISTICS | K::SET_OPTIONS | K::RESET_OPTIONS => (ShareUpdateExclusiveLock, Untouched),
        K::SET_DEFAULT
        | K::DROP_DEFAULT
        | K::DROP_NOT_NULL
        | K::SET_STORAGE
        | K::SET_COMPRESSION
        | K::ADD_GENERATED
        | K::DROP_IDENTITY
        | K::DROP_EXPRESSION => (AccessExclusiveLock, Untouched),
        _ => return None,
    })
}

fn added_constraint(action: &SyntaxNode, touch: &mut Touch) -> Option<(Mode, Work)> {
    use Mode::*;
    use Work::*;
    let constraint = action.first_child()?;
    let work = if has(&constraint, K::NOT_VALID) { Untouched } else { Scanned };
    Some(match constraint.kind() {
        K::FOREIGN_KEY_CONSTRAINT => {
            each(&constraint, &[K::TABLE_NAME_REF], |of| touch.hold(of, ShareRowExclusiveLock, work));
            (ShareRowExclusiveLock, work)
        }
        K::UNIQUE_CONSTRAINT if has(&constraint, K::USING_INDEX_NAME) => (AccessExclusiveLock, Untouched),
        K::PRIMARY_KEY_CONSTRAINT if has(&constraint, K::USING_INDEX_NAME) => {
            (AccessExclusiveLock, Depends("all are read where a column of the key is not NOT NULL yet"))
        }
        K::CHECK_CONSTRAINT
        | K::UNIQUE_CONSTRAINT
        | K::PRIMARY_KEY_CONSTRAINT
        | K::EXCLUDE_CONSTRAINT
        | K::NOT_NULL_CONSTRAINT => (AccessExclusiveLock, work),
        _ => return None,
    })
}

/// Storage parameters: <https://www.postgresql.org/docs/15/sql-altertable.html>, SET.
fn options(action: &SyntaxNode) -> Option<Mode> {
    let list = child(action, K::ATTRIBUTE_LIST)?;
    let gentle = |option: &str| {
        ["fillfactor", "toast", "autovacuum_", "log_autovacuum", "vacuum_", "parallel_workers"]
            .iter()
            .any(|known| option.starts_with(known))
    };
    let mut names = list.children().filter_map(|option| name_among(&option, &[K::ATTRIBUTE_NAME]));
    names.all(|option| gentle(&option)).then_some(Mode::ShareUpdateExclusiveLock)
}

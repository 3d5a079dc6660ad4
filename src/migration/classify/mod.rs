//! What a statement may do, by parsing it.

mod create;
mod drop;
mod table;
mod words;

use squawk_syntax::{SyntaxKind as K, SyntaxNode};

use self::words::Words;
use super::functions::calls;
use super::tree::{SyntaxProblem, child, has, name, with_tree};
use super::{Additive, Effect, Parsed};

/// Classifies one statement. When in doubt, the worse.
pub fn classify(statement: &str) -> Effect {
    examine(statement).0
}

/// The same, with what the parser said, where it was asked.
pub(crate) fn examine(statement: &str) -> (Effect, Parsed) {
    if words::inserts_literals(statement) {
        return (Effect::default(), Parsed::NotAsked);
    }
    let words = Words::of(statement);
    let seen = with_tree(statement, |root, problems| (look(root, problems), problems.first().cloned()));
    let (effect, problem) = seen.unwrap_or_default();
    let mut effect = effect.unwrap_or_else(|| Effect {
        destroys_data: words.destroys(),
        unknown: !words.begins(&["insert"]),
        ..Effect::default()
    });
    // By words rather than by tree: this must hold for statements that the parser does not know, too.
    effect.needs_no_transaction = words.needs_no_transaction();
    effect.controls_transaction = words.controls_transaction();
    effect.concurrent_index = words::concurrent_index(statement);
    (effect, problem.map_or(Parsed::Well, |SyntaxProblem { message, start }| Parsed::Badly { message, start }))
}

/// `None`: not exactly one statement, or one that the grammar does not know.
fn look(root: &SyntaxNode, problems: &[SyntaxProblem]) -> Option<Effect> {
    let mut statements = root.children().filter(|node| node.kind() != K::EMPTY_STMT);
    let statement = statements.next()?;
    let broken = !problems.is_empty() || root.descendants().any(|node| node.kind() == K::ERROR);
    if broken || statements.next().is_some() {
        return None;
    }
    Some(effect_of(&statement))
}

fn effect_of(node: &SyntaxNode) -> Effect {
    match node.kind() {
        K::CREATE_TABLE
        | K::CREATE_TABLE_AS
        | K::CREATE_INDEX
        | K::CREATE_VIEW
        | K::CREATE_MATERIALIZED_VIEW
        | K::CREATE_SEQUENCE
        | K::CREATE_SCHEMA
        | K::CREATE_TYPE
        | K::CREATE_DOMAIN
        | K::CREATE_FUNCTION
        | K::CREATE_PROCEDURE
        | K::CREATE_POLICY => create::effect(node),
        K::ALTER_TABLE => table::effect(node),
        K::ALTER_TYPE => alter_type(node),
        K::ALTER_SEQUENCE if has(node, K::OPTION_RESTART) => {
            destroys(format!("restarts {}", described(node, "sequence")))
        }
        K::TRUNCATE => destroys(match child(node, K::TABLE_LIST) {
            Some(tables) => format!("empties `{}`", name(&tables).replace(',', ", ")),
            None => "empties tables".to_owned(),
        }),
        K::COMMENT_ON => Effect { alters: commented(node), ..Effect::default() },
        K::SET => set(node),
        K::EXPLAIN => explain(node),
        // None of these changes a row or an object.
        K::ANALYZE | K::LOCK | K::NOTIFY | K::LISTEN | K::UNLISTEN | K::SHOW => nothing(),
        K::SAVEPOINT_CREATE | K::RELEASE_SAVEPOINT => nothing(),
        K::SELECT
        | K::SELECT_INTO
        | K::COMPOUND_SELECT
        | K::PAREN_SELECT
        | K::VALUES
        | K::TABLE
        | K::INSERT
        | K::UPDATE
        | K::DELETE
        | K::MERGE
        | K::COPY
        | K::DECLARE => query(node),
        K::DO | K::CALL | K::EXECUTE | K::PREPARE | K::LOAD => Effect { unknown: true, ..Effect::default() },
        kind if format!("{kind:?}").starts_with("DROP_") => drop::effect(node),
        _ => Effect::default(),
    }
}

fn nothing() -> Effect {
    Effect { additive: Additive::Nothing, ..Effect::default() }
}

fn destroys(what: String) -> Effect {
    Effect { destroys_data: Some(what), ..Effect::default() }
}

/// A query or a change of rows: looks into WITH, subqueries and function calls.
fn query(node: &SyntaxNode) -> Effect {
    let mut effect = Effect::default();
    let mut only_reads = !matches!(node.kind(), K::SELECT_INTO | K::COPY | K::DECLARE);
    for node in std::iter::once(node.clone()).chain(node.descendants()) {
        let what = match node.kind() {
            K::UPDATE => Some(format!("updates {}", described(&node, "table"))),
            K::DELETE => Some(format!("deletes from {}", described(&node, "table"))),
            K::MERGE => Some(format!("merges into {}", described(&node, "table"))),
            K::CONFLICT_DO_UPDATE_SET => Some("updates rows on conflict".to_owned()),
            _ => None,
        };
        only_reads &= !matches!(node.kind(), K::INSERT | K::UPDATE | K::DELETE | K::MERGE | K::SELECT_INTO);
        if let Some(what) = what {
            effect.destroys_data.get_or_insert(what);
        }
    }
    let calls = calls(node);
    effect.unknown = calls.unknown.is_some();
    if let Some(function) = calls.destructive {
        only_reads = false;
        effect.destroys_data.get_or_insert(format!("calls `{function}`"));
    }
    if only_reads && !effect.unknown {
        effect.additive = Additive::Nothing;
    }
    effect
}

fn explain(node: &SyntaxNode) -> Effect {
    let executes = node
        .descendants_with_tokens()
        .filter_map(|element| element.as_token().map(|token| token.kind()))
        .take_while(|kind| !matches!(kind, K::SELECT_KW | K::WITH_KW | K::INSERT_KW))
        .any(|kind| kind == K::ANALYZE_KW);
    match node.last_child() {
        Some(explained) if executes => Effect { additive: Additive::No, alters: None, ..effect_of(&explained) },
        _ => nothing(),
    }
}

/// Settings that change neither what names mean nor what values look like.
const HARMLESS_SETTINGS: &[&str] = &[
    "client_min_messages",
    "idle_in_transaction_session_timeout",
    "lock_timeout",
    "log_statement",
    "maintenance_work_mem",
    "max_parallel_maintenance_workers",
    "statement_timeout",
    "transaction_timeout",
    "work_mem",
];

fn set(node: &SyntaxNode) -> Effect {
    let setting = child(node, K::SET_CONFIG)
        .and_then(|config| child(&config, K::CONFIG_PARAMETER_REF))
        .map(|setting| name(&setting));
    match setting {
        Some(setting) if HARMLESS_SETTINGS.contains(&setting.as_str()) => nothing(),
        _ => Effect::default(),
    }
}

fn alter_type(node: &SyntaxNode) -> Effect {
    let loses = node.descendants().any(|node| matches!(node.kind(), K::DROP_ATTRIBUTE | K::ALTER_ATTRIBUTE));
    if loses { destroys(format!("changes the attributes of {}", described(node, "type"))) } else { Effect::default() }
}

/// What a COMMENT is about, as `kind name`.
fn commented(node: &SyntaxNode) -> Option<String> {
    let object = node.children().find(|child| format!("{:?}", child.kind()).starts_with("OBJECT_"))?;
    let of_table =
        || object.children().filter(|child| child.kind() == K::TABLE_NAME_REF).last().map(|table| name(&table));
    let first = name(&object.first_child()?);
    Some(match object.kind() {
        K::OBJECT_TABLE => format!("table {first}"),
        K::OBJECT_COLUMN => format!("column {first}"),
        K::OBJECT_INDEX => format!("index {first}"),
        K::OBJECT_VIEW => format!("view {first}"),
        K::OBJECT_MATERIALIZED_VIEW => format!("materialized view {first}"),
        K::OBJECT_SEQUENCE => format!("sequence {first}"),
        K::OBJECT_SCHEMA => format!("schema {first}"),
        K::OBJECT_TYPE => format!("type {first}"),
        K::OBJECT_DOMAIN => format!("domain {first}"),
        K::OBJECT_FUNCTION => format!("function {}", routine(&first)),
        K::OBJECT_PROCEDURE => format!("procedure {}", routine(&first)),
        K::OBJECT_POLICY => format!("policy {first} on {}", of_table()?),
        _ => return None,
    })
}

/// A routine's name without its arguments. Dropping a routine removes no row, and the fingerprint tells
/// overloads apart, so the name is enough here.
fn routine(signature: &str) -> &str {
    signature.split('(').next().unwrap_or(signature)
}

/// The object that a statement is about, for a message.
fn described(node: &SyntaxNode, otherwise: &str) -> String {
    let named = node.children().find(|child| {
        let kind = format!("{:?}", child.kind());
        kind.ends_with("NAME") || kind.ends_with("_REF")
    });
    match named {
        Some(named) => format!("`{}`", name(&named)),
        None => format!("a {otherwise}"),
    }
}

#[cfg(test)]
mod tests;

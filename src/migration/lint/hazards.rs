//! Lock and rewrite hazards, and what else the squawk linter knows about a script.

use squawk_linter::{Edit, Linter, Rule as Known, Violation};
use squawk_syntax::{Parse, SourceFile, SyntaxKind as K, SyntaxNode};

use super::super::Script;
use super::super::tree::{name_among, readable, with_file, with_tree};
use super::rules::{self, Group, Rule};

/// What the linter found in a script.
#[derive(Clone, Debug)]
pub(super) struct Hazard {
    pub rule: &'static Rule,
    /// Byte offset in the script's text.
    pub offset: usize,
    pub message: String,
    pub help: Option<String>,
    /// The table that the statement works on, as it is written.
    pub table: Option<String>,
    /// Replacements that mend it, by byte range.
    pub edits: Vec<(std::ops::Range<usize>, String)>,
}

/// Asks for the rules that `wanted` names. A script that cannot be parsed as a whole has no hazards; what
/// stands against its syntax is found elsewhere.
pub(super) fn hazards(script: &Script, wanted: Vec<&'static Rule>) -> Vec<Hazard> {
    if wanted.is_empty() || script.is_empty() {
        return Vec::new();
    }
    let in_transaction = script.no_transaction.is_none();
    let text = parseable(script);
    with_file(text, move |file, text| {
        let known = wanted.iter().filter_map(|rule| Known::try_from(rule.id).ok());
        let mut linter = Linter::from(known);
        linter.settings.assume_in_transaction = in_transaction;
        let violations = linter.lint(file, text);
        let made = made_here(&file.syntax_node());
        // Nobody waits for a table that is not committed yet. The linter knows that of tables alone.
        let matters = |hazard: &Hazard| {
            hazard.rule.group != Group::Locks || !hazard.table.as_ref().is_some_and(|table| made.contains(table))
        };
        violations.into_iter().filter_map(|violation| hazard(file, violation)).filter(matters).collect()
    })
    .unwrap_or_default()
}

fn made_here(file: &SyntaxNode) -> Vec<String> {
    let makes = |kind| matches!(kind, K::CREATE_TABLE | K::CREATE_TABLE_AS | K::CREATE_MATERIALIZED_VIEW);
    let statements = file.children().filter(|node| makes(node.kind()));
    statements.filter_map(|node| name_among(&node, &[K::TABLE_NAME, K::VIEW])).collect()
}

fn hazard(file: &Parse<SourceFile>, violation: Violation) -> Option<Hazard> {
    let rule = rules::rule(&violation.code.to_string())?;
    let offset = usize::from(violation.text_range.start());
    let statement = file.syntax_node().children().find(|node| node.text_range().contains_range(violation.text_range));
    let edits = violation.fix.map(|fix| fix.edits.iter().map(edit).collect()).unwrap_or_default();
    Some(Hazard {
        rule,
        offset,
        message: plain(&violation.message),
        help: violation.help.map(|help| plain(&help)),
        table: statement.and_then(|node| table_of(&node)),
        edits,
    })
}

fn edit(edit: &Edit) -> (std::ops::Range<usize>, String) {
    let range = usize::from(edit.text_range.start())..usize::from(edit.text_range.end());
    (range, edit.text.clone().unwrap_or_default())
}

/// The linter's sentence as ours read: without the capital and the full stop.
fn plain(message: &str) -> String {
    let message = message.trim().trim_end_matches('.');
    let mut letters = message.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if first.is_uppercase() && second.is_lowercase() => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => message.to_owned(),
    }
}

fn table_of(statement: &SyntaxNode) -> Option<String> {
    match statement.kind() {
        K::ALTER_TABLE | K::CREATE_INDEX => name_among(statement, &[K::TABLE_RELATION_NAME]),
        _ => None,
    }
}

/// UPDATE and DELETE statements: where, which, and of what table.
pub(super) fn sweeps(script: &Script) -> Vec<(usize, &'static str, String)> {
    let of = |statement: &super::super::Statement| {
        with_tree(script.text(statement), |root, _| {
            let node = root.first_child()?;
            let verb = match node.kind() {
                K::UPDATE => "UPDATE",
                K::DELETE => "DELETE",
                _ => return None,
            };
            Some((verb, name_among(&node, &[K::RELATION_NAME, K::TABLE_RELATION_NAME])?))
        })
        .flatten()
        .map(|(verb, table)| (statement.start, verb, table))
    };
    script.statements.iter().filter_map(of).collect()
}

/// The script's text with blanks in place of what the parser is kept away from, so that places stay the same.
fn parseable(script: &Script) -> String {
    let mut text = script.sql.clone().into_bytes();
    for statement in &script.statements {
        if !readable(script.text(statement)) || script.text(statement).contains("\n\\.") {
            for byte in text.get_mut(statement.start..statement.end).unwrap_or_default() {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
        }
    }
    String::from_utf8(text).unwrap_or_default()
}

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
    let Parseable { text, cuts } = parseable(script);
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
        let found = violations.into_iter().filter_map(|violation| hazard(file, violation)).filter(matters);
        found.map(|hazard| hazard.in_script(&cuts)).collect()
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
    // Where the new value belongs, only a person knows: the linter would write a stand-in.
    let mechanical = rule.id != "require-enum-value-ordering";
    let edits =
        violation.fix.filter(|_| mechanical).map(|fix| fix.edits.iter().map(edit).collect()).unwrap_or_default();
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

/// A script's text without what the parser is kept away from.
struct Parseable {
    text: String,
    /// Places in `text`, each with the number of bytes that were left out before it.
    cuts: Vec<(usize, usize)>,
}

/// Statements that are too long for the parser, and the rows of a COPY, are left out.
fn parseable(script: &Script) -> Parseable {
    let mut parseable = Parseable { text: String::new(), cuts: Vec::new() };
    let mut at = 0;
    let mut without = |from: usize, to: usize| {
        parseable.text.push_str(script.sql.get(at..from).unwrap_or_default());
        parseable.cuts.push((parseable.text.len(), to.saturating_sub(parseable.text.len())));
        at = to;
    };
    for statement in &script.statements {
        if !readable(script.text(statement)) {
            without(statement.start, statement.end);
        }
        if let Some(data) = &statement.data {
            without(data.start, data.end);
        }
    }
    parseable.text.push_str(script.sql.get(at..).unwrap_or_default());
    parseable
}

impl Hazard {
    /// With its places in the whole script.
    fn in_script(mut self, cuts: &[(usize, usize)]) -> Hazard {
        let place = |at: usize| at + cuts.iter().rfind(|(from, _)| *from <= at).map_or(0, |(_, left_out)| *left_out);
        self.offset = place(self.offset);
        for (range, _) in &mut self.edits {
            *range = place(range.start)..place(range.end);
        }
        self
    }
}

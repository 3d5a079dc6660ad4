//! ALTER TABLE, action by action.

use squawk_syntax::{SyntaxKind as K, SyntaxNode};

use super::super::functions::{calls, is_constant};
use super::super::tree::{child, has, name, name_among};
use super::super::{Additive, Effect};

pub(super) fn effect(node: &SyntaxNode) -> Effect {
    let mut effect = Effect::default();
    let Some(table) = name_among(node, &[K::TABLE_RELATION_NAME]) else {
        // ALTER TABLE ALL IN TABLESPACE … moves tables and changes nothing in them.
        return effect;
    };
    let mut created = Vec::new();
    let mut dropped = Vec::new();
    let mut others = 0_usize;
    let mut keeps_rows = true;
    for action in node.children() {
        let column = name_among(&action, &[K::COLUMN_NAME, K::COLUMN_NAME_REF]).unwrap_or_default();
        let shown = format!("`{table}.{column}`");
        let cascade = has(&action, K::CASCADE);
        match action.kind() {
            K::TABLE_RELATION_NAME | K::IF_EXISTS => continue,
            K::ADD_COLUMN => {
                effect.unknown |= calls(&action).unknown.is_some();
                effect.if_not_exists |= has(&action, K::IF_NOT_EXISTS);
                if is_cheap_column(&action) {
                    created.push(format!("column {table}.{column}"));
                } else {
                    others += 1;
                }
            }
            K::DROP_COLUMN => {
                let what = format!("drops column {shown}");
                effect.destroys_data.get_or_insert(what);
                if cascade {
                    others += 1;
                } else {
                    dropped.push(format!("column {table}.{column}"));
                }
            }
            K::ALTER_COLUMN if has(&action, K::SET_TYPE) => {
                let what = format!("changes the type of column {shown}");
                effect.destroys_data.get_or_insert(what);
                effect.unknown |= calls(&action).unknown.is_some();
                keeps_rows = false;
                others += 1;
            }
            // The sequence behind it goes, and with it where it stood.
            K::ALTER_COLUMN if has(&action, K::DROP_IDENTITY) => {
                let what = format!("drops the identity of column {shown}");
                effect.destroys_data.get_or_insert(what);
                others += 1;
            }
            K::ALTER_COLUMN if action.children().any(|change| format!("{:?}", change.kind()).contains("RESTART")) => {
                let what = format!("restarts the sequence of column {shown}");
                effect.destroys_data.get_or_insert(what);
                others += 1;
            }
            K::ENABLE_RLS | K::DISABLE_RLS | K::FORCE_RLS | K::NO_FORCE_RLS | K::OWNER_TO => others += 1,
            K::ALTER_COLUMN
                if [K::SET_DEFAULT, K::DROP_DEFAULT, K::SET_NOT_NULL, K::DROP_NOT_NULL]
                    .iter()
                    .any(|kind| has(&action, *kind)) =>
            {
                others += 1;
            }
            K::ADD_CONSTRAINT => {
                effect.unknown |= calls(&action).unknown.is_some();
                keeps_rows &= !effect.unknown;
                others += 1;
            }
            // MERGE and SPLIT PARTITION, SET EXPRESSION and whatever comes: not known to be harmless.
            _ => {
                keeps_rows = false;
                others += 1;
            }
        }
    }
    effect.additive = match (created.is_empty(), dropped.is_empty(), others) {
        (false, true, 0) if !effect.unknown => Additive::Creates(created.join(", ")),
        (true, false, 0) => Additive::Drops(dropped.join(", ")),
        _ => Additive::No,
    };
    if keeps_rows && effect.destroys_data.is_none() && effect.additive == Additive::No {
        effect.alters = Some(format!("table {table}"));
    }
    effect
}

/// A column that comes without computing anything for the rows that are there: nullable without a
/// default, or with a constant one. <https://www.postgresql.org/docs/15/sql-altertable.html>, Notes.
fn is_cheap_column(column: &SyntaxNode) -> bool {
    let default = child(column, K::DEFAULT_CONSTRAINT);
    let serial = child(column, K::PATH_TYPE).is_some_and(|kind| {
        let kind = name(&kind);
        let kind = kind.strip_prefix("pg_catalog.").unwrap_or(&kind);
        kind.contains("serial")
    });
    let constant = default.as_ref().is_none_or(is_constant);
    let not_null = has(column, K::NOT_NULL_CONSTRAINT) || has(column, K::PRIMARY_KEY_CONSTRAINT);
    let known = column.children().all(|part| match part.kind() {
        K::DEFAULT_CONSTRAINT
        | K::NOT_NULL_CONSTRAINT
        | K::NULL_CONSTRAINT
        | K::REFERENCES_CONSTRAINT
        | K::UNIQUE_CONSTRAINT => true,
        K::CHECK_CONSTRAINT => calls(&part).unknown.is_none(),
        kind => !format!("{kind:?}").ends_with("_CONSTRAINT"),
    });
    !serial && constant && known && (!not_null || default.is_some())
}

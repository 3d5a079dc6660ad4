//! CREATE: what it adds.

use squawk_syntax::{SyntaxKind as K, SyntaxNode};

use super::super::functions::calls;
use super::super::tree::{child, has, name, name_among};
use super::super::{Additive, Effect};
use super::query;

/// The effect of the kinds of CREATE that only add something. OR REPLACE does not: it changes what was
/// there. A temporary table does not either: it hides what a later statement means by the same name.
pub(super) fn effect(node: &SyntaxNode) -> Effect {
    let mut effect = match node.kind() {
        // Their query is executed.
        K::CREATE_TABLE_AS | K::CREATE_MATERIALIZED_VIEW => Effect { additive: Additive::No, ..query(node) },
        _ => Effect::default(),
    };
    let runs = calls(node);
    // An index's expressions are computed for every row; the others' expressions only later.
    effect.unknown |= node.kind() == K::CREATE_INDEX && runs.unknown.is_some();
    effect.if_not_exists = has(node, K::IF_NOT_EXISTS);
    let adds = !has(node, K::OR_REPLACE)
        && !has(node, K::TEMP)
        && !has(node, K::PARTITION_OF)
        && !has(node, K::INHERITS)
        && !effect.unknown
        && effect.destroys_data.is_none();
    if let (true, Some(created)) = (adds, created(node)) {
        effect.additive = Additive::Creates(created);
    }
    effect
}

fn created(node: &SyntaxNode) -> Option<String> {
    let named = |kind: &str, kinds: &[K]| Some(format!("{kind} {}", name_among(node, kinds)?));
    match node.kind() {
        // CREATE TABLE … AS EXECUTE runs whatever was prepared.
        K::CREATE_TABLE_AS if has(node, K::EXECUTE) => None,
        K::CREATE_TABLE | K::CREATE_TABLE_AS => named("table", &[K::TABLE_NAME]),
        K::CREATE_VIEW => named("view", &[K::VIEW]),
        K::CREATE_MATERIALIZED_VIEW => named("materialized view", &[K::VIEW]),
        K::CREATE_SEQUENCE => named("sequence", &[K::SEQUENCE]),
        K::CREATE_TYPE => named("type", &[K::TYPE_NAME]),
        K::CREATE_DOMAIN => named("domain", &[K::DOMAIN]),
        K::CREATE_FUNCTION => named("function", &[K::FUNCTION_NAME]),
        K::CREATE_PROCEDURE => named("procedure", &[K::PROCEDURE_NAME]),
        K::CREATE_POLICY => {
            let table = name_among(&child(node, K::ON_TABLE)?, &[K::TABLE_NAME_REF])?;
            let policy = name_among(node, &[K::POLICY])?;
            Some(format!("policy {policy} on {table}"))
        }
        K::CREATE_SCHEMA => {
            // With objects inside it is several statements in one.
            let only_schema = node.children().all(|child| matches!(child.kind(), K::NAMED_SCHEMA | K::IF_NOT_EXISTS));
            let schema = child(node, K::NAMED_SCHEMA).and_then(|named| child(&named, K::SCHEMA))?;
            only_schema.then(|| format!("schema {}", name(&schema)))
        }
        K::CREATE_INDEX => {
            let table = name_among(node, &[K::TABLE_RELATION_NAME])?;
            match name_among(node, &[K::INDEX]) {
                // An index lives in its table's schema, which is written before the table if anywhere.
                Some(index) => Some(match table.rsplit_once('.') {
                    Some((schema, _)) => format!("index {schema}.{index}"),
                    None => format!("index {index}"),
                }),
                None => Some(format!("unnamed index on {table}")),
            }
        }
        _ => None,
    }
}

//! DROP: what goes with it.

use squawk_syntax::{SyntaxKind as K, SyntaxNode};

use super::super::tree::{child, has, name, name_among};
use super::super::{Additive, Effect};
use super::routine;

pub(super) fn effect(node: &SyntaxNode) -> Effect {
    let cascade = has(node, K::CASCADE);
    let kind = kind(node.kind());
    let objects = objects(node);
    let listed = if objects.is_empty() { kind.to_owned() } else { format!("{kind} `{}`", objects.join("`, `")) };
    let destroys = match node.kind() {
        K::DROP_TABLE | K::DROP_SEQUENCE | K::DROP_SCHEMA | K::DROP_DATABASE | K::DROP_OWNED => true,
        // Its own tables go with it, and columns of its types with CASCADE.
        K::DROP_EXTENSION => true,
        // Columns of this type, or computed by this function or operator, go with it.
        K::DROP_TYPE
        | K::DROP_DOMAIN
        | K::DROP_FUNCTION
        | K::DROP_PROCEDURE
        | K::DROP_ROUTINE
        | K::DROP_AGGREGATE
        | K::DROP_CAST
        | K::DROP_COLLATION
        | K::DROP_OPERATOR
        | K::DROP_OPERATOR_CLASS
        | K::DROP_OPERATOR_FAMILY
        | K::DROP_LANGUAGE
        | K::DROP_ACCESS_METHOD => cascade,
        // Rows of a foreign table are elsewhere; views, indexes, policies and the like hold none.
        _ => false,
    };
    let dropped = match node.kind() {
        _ if cascade || objects.is_empty() => None,
        K::DROP_POLICY => child(node, K::ON_TABLE)
            .and_then(|on| name_among(&on, &[K::TABLE_NAME_REF]))
            .map(|table| format!("policy {} on {table}", objects.concat())),
        K::DROP_TABLE
        | K::DROP_INDEX
        | K::DROP_VIEW
        | K::DROP_MATERIALIZED_VIEW
        | K::DROP_TYPE
        | K::DROP_DOMAIN
        | K::DROP_SEQUENCE
        | K::DROP_SCHEMA
        | K::DROP_FUNCTION
        | K::DROP_PROCEDURE => {
            let each: Vec<_> = objects.iter().map(|name| format!("{kind} {name}")).collect();
            Some(each.join(", "))
        }
        _ => None,
    };
    Effect {
        destroys_data: destroys.then(|| {
            let with = if cascade { " and what depends on it" } else { "" };
            format!("drops {listed}{with}")
        }),
        additive: dropped.map_or(Additive::No, Additive::Drops),
        ..Effect::default()
    }
}

fn kind(kind: K) -> String {
    let kind = format!("{kind:?}").to_ascii_lowercase();
    kind.strip_prefix("drop_").unwrap_or(&kind).replace('_', " ")
}

/// The names that the statement drops.
fn objects(node: &SyntaxNode) -> Vec<String> {
    let mut objects = Vec::new();
    for child in node.children() {
        let kind = format!("{:?}", child.kind());
        if kind.ends_with("_SIG_LIST") {
            objects.extend(child.children().map(|signature| routine(&name(&signature)).to_owned()));
        } else if kind.ends_with("_REF") {
            objects.push(name(&child));
        }
    }
    objects
}

//! Functions that a proof may rely on.

use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::tree::name;

/// Functions of PostgreSQL that change nothing. Those whose outcome depends on the moment are among
/// them: they change nothing either.
const HARMLESS: &[&str] = &[
    "abs",
    "age",
    "any_value",
    "array",
    "array_agg",
    "array_append",
    "array_cat",
    "array_length",
    "array_position",
    "array_prepend",
    "array_remove",
    "array_replace",
    "array_to_json",
    "array_to_string",
    "ascii",
    "avg",
    "bit_and",
    "bit_or",
    "bool_and",
    "bool_or",
    "btrim",
    "cardinality",
    "ceil",
    "ceiling",
    "char_length",
    "character_length",
    "chr",
    "clock_timestamp",
    "coalesce",
    "concat",
    "concat_ws",
    "count",
    "cume_dist",
    "current_database",
    "current_date",
    "current_schema",
    "current_setting",
    "current_timestamp",
    "date",
    "date_bin",
    "date_part",
    "date_trunc",
    "decode",
    "dense_rank",
    "encode",
    "every",
    "exp",
    "first_value",
    "floor",
    "format",
    "gen_random_uuid",
    "generate_series",
    "generate_subscripts",
    "greatest",
    "has_schema_privilege",
    "has_table_privilege",
    "initcap",
    "isfinite",
    "json_agg",
    "json_array_elements",
    "json_array_length",
    "json_build_array",
    "json_build_object",
    "json_each",
    "json_each_text",
    "json_object_agg",
    "json_object_keys",
    "jsonb_agg",
    "jsonb_array_elements",
    "jsonb_array_elements_text",
    "jsonb_array_length",
    "jsonb_build_array",
    "jsonb_build_object",
    "jsonb_each",
    "jsonb_each_text",
    "jsonb_extract_path",
    "jsonb_extract_path_text",
    "jsonb_insert",
    "jsonb_object_agg",
    "jsonb_object_keys",
    "jsonb_path_query",
    "jsonb_pretty",
    "jsonb_set",
    "jsonb_strip_nulls",
    "jsonb_typeof",
    "justify_days",
    "lag",
    "last_value",
    "lead",
    "least",
    "left",
    "length",
    "ln",
    "localtimestamp",
    "log",
    "lower",
    "lpad",
    "ltrim",
    "make_date",
    "make_interval",
    "make_timestamp",
    "make_timestamptz",
    "max",
    "md5",
    "min",
    "mod",
    "mode",
    "now",
    "nth_value",
    "ntile",
    "nullif",
    "num_nonnulls",
    "num_nulls",
    "numrange",
    "octet_length",
    "pg_backend_pid",
    "pg_get_serial_sequence",
    "pg_typeof",
    "pi",
    "power",
    "percent_rank",
    "percentile_cont",
    "percentile_disc",
    "plainto_tsquery",
    "quote_ident",
    "quote_literal",
    "quote_nullable",
    "random",
    "rank",
    "regexp_match",
    "regexp_matches",
    "regexp_replace",
    "regexp_split_to_array",
    "regexp_split_to_table",
    "repeat",
    "replace",
    "reverse",
    "right",
    "round",
    "row_number",
    "row_to_json",
    "rpad",
    "rtrim",
    "setweight",
    "sha256",
    "sha512",
    "sign",
    "split_part",
    "sqrt",
    "statement_timestamp",
    "stddev",
    "string_agg",
    "string_to_array",
    "strpos",
    "substr",
    "substring",
    "sum",
    "text",
    "to_char",
    "to_date",
    "to_json",
    "to_jsonb",
    "to_number",
    "to_regclass",
    "to_timestamp",
    "to_tsquery",
    "to_tsvector",
    "transaction_timestamp",
    "translate",
    "trim",
    "trunc",
    "tsrange",
    "tstzrange",
    "unnest",
    "upper",
    "variance",
    "version",
    "websearch_to_tsquery",
    "width_bucket",
];

/// Functions that overwrite a value which was there.
const DESTRUCTIVE: &[&str] = &["setval", "lo_unlink", "lo_put", "lowrite", "lo_truncate", "lo_truncate64"];

/// What the calls in a statement may do.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// The first function that none of the lists knows.
    pub unknown: Option<String>,
    /// The first function that overwrites something.
    pub destructive: Option<String>,
}

/// Looks at every function call below `node`.
pub(crate) fn calls(node: &SyntaxNode) -> Calls {
    let mut calls = Calls::default();
    for call in node.descendants() {
        if call.kind() != SyntaxKind::CALL_EXPR {
            continue;
        }
        // `extract(…)`, `exists(…)` and the like have nodes of their own and are the grammar's.
        let Some(callee) =
            call.first_child().filter(|callee| matches!(callee.kind(), SyntaxKind::NAME_REF | SyntaxKind::FIELD_EXPR))
        else {
            continue;
        };
        let called = name(&callee);
        let plain = called.strip_prefix("pg_catalog.").unwrap_or(&called);
        if DESTRUCTIVE.contains(&plain) {
            calls.destructive.get_or_insert(plain.to_owned());
        } else if !HARMLESS.contains(&plain) {
            calls.unknown.get_or_insert(called);
        }
    }
    calls
}

/// Whether an expression is made of literals only, so that it has one value for all rows and for good.
pub(crate) fn is_constant(node: &SyntaxNode) -> bool {
    std::iter::once(node.clone()).chain(node.descendants()).all(|node| {
        !matches!(
            node.kind(),
            SyntaxKind::CALL_EXPR
                | SyntaxKind::NAME_REF
                | SyntaxKind::FIELD_EXPR
                | SyntaxKind::SELECT
                | SyntaxKind::ERROR
        )
    })
}

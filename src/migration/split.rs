//! SQL text → statements, by PostgreSQL's own lexical rules.

use super::Statement;
use crate::error::Result;

/// Cuts `sql` into statements: dollar quotes, nested comments, `E''`, `U&''`, quoted names, BEGIN ATOMIC
/// bodies. The last may lack its semicolon. Pieces with nothing but white space and comments are none.
/// `first_line` and `file` are for messages: an unterminated quote or comment, a psql meta-command.
pub fn split(_sql: &str, _file: &str, _first_line: u32) -> Result<Vec<Statement>> {
    todo!()
}

/// The text without comments and with white space folded, outside quotes.
pub fn fold(_sql: &str) -> String {
    todo!()
}

//! What the words of a script tell, without the server.

use std::ops::Range;

use crate::migration::Script;

/// How much of a failed statement an error shows.
const SHOWN_CHARACTERS: usize = 200;

/// Whether it is a COPY from or to whoever sends it.
pub(super) fn copies(words: &[String]) -> bool {
    let stream = |pair: &[String]| matches!(pair, [first, second] if matches!((first.as_str(), second.as_str()), ("FROM", "STDIN") | ("TO", "STDOUT")));
    words.first().is_some_and(|word| word == "COPY") && words.windows(2).any(stream)
}

/// The words of SQL, punctuation left out.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Of a character's number, from 1.
pub(super) fn byte_offset(sql: &str, position: u32) -> Option<usize> {
    let before = usize::try_from(position).ok()?.checked_sub(1)?;
    match sql.char_indices().nth(before) {
        Some((offset, _)) => Some(offset),
        None => (before == sql.chars().count()).then_some(sql.len()),
    }
}

/// A statement's beginning, on one line.
pub(super) fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{} …", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

/// What helps against an error of this kind.
pub(super) fn hint(sqlstate: &str, late: bool) -> Option<&'static str> {
    Some(match sqlstate {
        "55P03" => "another session holds a lock that this needs: wait for it to end, or raise `lock_timeout`",
        "57014" if late => "raise the migration's time limit, or split the migration",
        "57014" => "raise `statement_timeout`, or split the statement",
        "40P01" => "another session wanted the same rows in another order: run again",
        "2D000" => {
            "a procedure or DO block that commits needs to run outside a transaction: -- ripcord: no-transaction"
        }
        "25001" => "this cannot run in a transaction: put a line `-- ripcord: no-transaction` into the file",
        "42501" => "run as a role that owns the objects, or grant it the right",
        _ => return None,
    })
}

/// The first words of those statements, in upper case.
fn first_words(script: &Script, statements: Range<usize>) -> impl Iterator<Item = Vec<String>> + '_ {
    script.statements.get(statements).unwrap_or_default().iter().map(|statement| {
        let text = script.sql.get(statement.start..statement.end).unwrap_or_default();
        words(text).take(3).map(str::to_ascii_uppercase).collect()
    })
}

/// Whether one of the statements ends a transaction. ROLLBACK TO a savepoint does not.
pub(super) fn ends_transaction(script: &Script, statements: Range<usize>) -> bool {
    first_words(script, statements).any(|words| {
        let word = |at: usize| words.get(at).map_or("", String::as_str);
        match (word(0), word(1)) {
            ("COMMIT" | "END" | "ABORT", _) | ("PREPARE", "TRANSACTION") => true,
            ("ROLLBACK", "TO") => false,
            ("ROLLBACK", "WORK" | "TRANSACTION") => word(2) != "TO",
            ("ROLLBACK", _) => true,
            _ => false,
        }
    })
}

/// Whether it takes every setting back, the marker of our transaction among them.
pub(super) fn resets_all(script: &Script, statements: Range<usize>) -> bool {
    first_words(script, statements).any(|words| words.starts_with(&["RESET".to_owned(), "ALL".to_owned()]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::Statement;

    fn script(statements: &[&str]) -> Script {
        let mut sql = String::new();
        let mut found = Vec::new();
        for text in statements {
            let start = sql.len();
            sql.push_str(text);
            found.push(Statement { start, end: sql.len(), ..Statement::default() });
            sql.push('\n');
        }
        Script { sql: sql.into(), first_line: 1, statements: found, ..Script::default() }
    }

    #[test]
    fn what_ends_a_transaction() {
        for (text, expected) in [
            ("commit;", true),
            ("END", true),
            ("Rollback;", true),
            ("rollback and chain", true),
            ("ROLLBACK WORK", true),
            ("abort", true),
            ("prepare transaction 'x'", true),
            ("prepare q as select 1", false),
            ("rollback to a", false),
            ("rollback transaction to savepoint a", false),
            ("savepoint a", false),
            ("begin", false),
            ("committed()", false),
        ] {
            assert_eq!(ends_transaction(&script(&[text]), 0..1), expected, "{text}");
        }
        assert!(!ends_transaction(&script(&["select 1", "commit"]), 0..1));
        assert!(resets_all(&script(&["select 1", "reset all;"]), 0..2));
    }

    #[test]
    fn positions_count_characters() {
        assert_eq!(byte_offset("é x", 1), Some(0));
        assert_eq!(byte_offset("é x", 2), Some(2));
        assert_eq!(byte_offset("é x", 4), Some(4));
        assert_eq!(byte_offset("é x", 5), None);
        assert_eq!(byte_offset("é x", 0), None);
    }

    #[test]
    fn statements_are_shortened() {
        assert_eq!(shortened("a\n  b"), "a b");
        assert_eq!(shortened(&"é".repeat(300)).chars().count(), SHOWN_CHARACTERS + 2);
    }
}

//! Rights for everybody, and functions that run with their owner's rights in somebody else's search path.

use super::super::lexer::{Kind, Lexer};
use super::super::{Script, Statement};

/// What a statement does, when it is one of them.
pub(super) struct Opening {
    pub rule: &'static str,
    pub message: String,
    pub help: &'static str,
}

/// Looks at one statement.
pub(super) fn opening(script: &Script, statement: &Statement) -> Option<Opening> {
    let words = words(script.text(statement));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    grant(&words).or_else(|| definer(&words))
}

fn grant(words: &[&str]) -> Option<Opening> {
    let grants = words.first() == Some(&"grant")
        || (words.starts_with(&["alter", "default", "privileges"]) && words.contains(&"grant"));
    let to = words.iter().rposition(|word| *word == "to")?;
    let to_public = words.get(to..).unwrap_or_default().contains(&"public");
    (grants && to_public).then(|| Opening {
        rule: "grant-to-public",
        message: "it gives rights to PUBLIC, which is everybody who can connect".to_owned(),
        help: "grant to the role that needs it",
    })
}

fn definer(words: &[&str]) -> Option<Opening> {
    let kind = words.iter().find(|word| matches!(**word, "function" | "procedure" | "routine"))?;
    let makes = matches!(words.first(), Some(&"create" | &"alter"));
    let has = |pair: [&str; 2]| words.windows(2).any(|found| found == pair);
    (makes && has(["security", "definer"]) && !has(["set", "search_path"])).then(|| Opening {
        rule: "security-definer-search-path",
        message: format!(
            "the {kind} runs with its owner's rights and looks names up in its caller's search_path, so that the caller \
             chooses what it finds"
        ),
        help: "add: SET search_path = pg_catalog, the_schema, pg_temp",
    })
}

/// Key words and names outside quotes and bodies, in lower case.
fn words(sql: &str) -> Vec<String> {
    let tokens = Lexer::new(sql).map_while(Result::ok);
    let words = tokens.filter(|token| matches!(token.kind, Kind::Word | Kind::QuotedName));
    words.map(|token| token.text(sql).trim_matches('"').to_ascii_lowercase()).collect()
}

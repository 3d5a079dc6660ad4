//! The comment lines of a file, and the directives in them.

use std::time::Duration;

use super::super::lexer::{Kind, Lexer};
use super::super::{Batch, Metadata, Remark, Script};
use crate::error::{Error, Result};

/// A `-- …` comment that has its line to itself, outside quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CommentLine<'a> {
    /// Line number, from 1.
    pub line: u32,
    /// Where the line begins.
    pub start: usize,
    /// Where the next line begins.
    pub next: usize,
    /// What stands after the dashes, without white space around.
    pub text: &'a str,
}

/// All of them, up to a quote that never ends: that is for the splitter to tell.
pub(super) fn comment_lines(text: &str) -> Vec<CommentLine<'_>> {
    let mut found = Vec::new();
    let mut line = 1_u32;
    let mut counted = 0;
    for token in Lexer::new(text).map_while(std::result::Result::ok) {
        let content = token.text(text);
        if token.kind != Kind::Comment || !content.starts_with("--") {
            continue;
        }
        let start = text.get(..token.start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
        let between = text.get(counted..token.start).unwrap_or_default();
        line = line.saturating_add(lines(between));
        counted = token.start;
        let indent = text.get(start..token.start).unwrap_or_default();
        if !indent.trim_start_matches('\u{feff}').trim().is_empty() {
            continue;
        }
        let next = text.get(token.end..).and_then(|rest| rest.find('\n')).map_or(text.len(), |at| token.end + at + 1);
        found.push(CommentLine { line, start, next, text: content.trim_start_matches('-').trim() });
    }
    found
}

fn lines(text: &str) -> u32 {
    u32::try_from(memchr::memchr_iter(b'\n', text.as_bytes()).count()).unwrap_or(u32::MAX)
}

/// The text of a comment line when it is a marker: key words alone, perhaps between rules.
pub(super) fn marker(comment: &CommentLine<'_>) -> String {
    let bare = comment
        .text
        .trim_matches(|character: char| character.is_whitespace() || matches!(character, '=' | '-' | '*' | '#' | ':'));
    bare.to_ascii_uppercase()
}

/// A line that is nothing but a rule: `====`, `----`.
pub(super) fn is_rule(comment: &CommentLine<'_>) -> bool {
    let rule = |character: char| matches!(character, '=' | '-' | '*' | '#');
    comment.text.chars().all(rule)
}

/// What the `-- ripcord:` lines ask for, besides what goes into the metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Directives {
    /// Lines of `no-transaction`.
    pub no_transaction: Vec<u32>,
    /// `batch`: each is about the statement below it.
    pub batches: Vec<Batch>,
}

/// Reads `-- ripcord:` lines, and the `@depends-on:`, `Dependencies:`, `Author:` and `Description:`
/// lines of a header.
pub(super) fn directives(comments: &[CommentLine<'_>], file: &str, metadata: &mut Metadata) -> Result<Directives> {
    let mut directives = Directives::default();
    // The line of a `Dependencies:` whose names stand below it, one a line.
    let mut listing = None;
    for comment in comments {
        if listing.is_some_and(|line: u32| line.saturating_add(1) == comment.line)
            && let Some(name) = comment.text.strip_prefix(['-', '*']).or(Some(comment.text)).map(str::trim)
            && name.ends_with(".sql")
        {
            metadata.dependencies.push(name.to_owned());
            listing = Some(comment.line);
            continue;
        }
        listing = None;
        let Some((key, value)) = comment.text.split_once(':') else {
            continue;
        };
        let value = value.trim();
        match key.trim().to_ascii_lowercase().as_str() {
            "ripcord" => directives.apply(value, comment.line, file, metadata)?,
            "@depends-on" | "dependencies" => {
                if value.is_empty() {
                    listing = Some(comment.line);
                }
                depends(value, comment.line, metadata);
            }
            "author" if metadata.author.is_none() => metadata.author = Some(value.to_owned()),
            "description" if metadata.description.is_none() => {
                metadata.description = Some(value.to_owned());
            }
            _ => {}
        }
    }
    Ok(directives)
}

fn words(text: &str) -> Vec<String> {
    let parts = text.split(|character: char| character == ',' || character.is_whitespace());
    parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Names of migrations, parted by commas. Headers are written for people too: `none (the first)` is none, what
/// stands behind a file's name is left out, and words that are no name are told and not followed.
fn depends(value: &str, line: u32, metadata: &mut Metadata) {
    for part in value.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let first = part.split_whitespace().next().unwrap_or_default();
        let lower = first.to_ascii_lowercase();
        if matches!(lower.as_str(), "none" | "n/a" | "-" | "nothing" | "none.") {
            continue;
        }
        if first == part || lower.ends_with(".sql") {
            metadata.dependencies.push(first.to_owned());
        } else {
            metadata.remarks.push(Remark {
                rule: "metadata",
                line,
                message: format!("`{part}` among the dependencies is no name of a migration, and is not followed"),
            });
        }
    }
}

impl Directives {
    /// Gives each `batch` to the statement below it, which must be one that can repeat.
    pub fn give_batches(&self, script: &mut Script, file: &str) -> Result<()> {
        for batch in &self.batches {
            let below = script.statements.iter().position(|statement| script.line(statement) > batch.line);
            let number = below.ok_or_else(|| {
                Error::failed(format!("`{file}`, line {}: no statement of UP stands below `batch`", batch.line))
            })?;
            let text = script.statements.get(number).map_or("", |statement| script.text(statement));
            batch.rounds(text).map_err(|why| {
                Error::failed(format!("`{file}`, line {}: the statement cannot repeat in batches", batch.line + 1))
                    .because(why)
            })?;
            script.batches.insert(number, batch.clone());
            script.no_transaction.get_or_insert(format!("`-- ripcord: batch` in line {}", batch.line));
        }
        Ok(())
    }

    fn apply(&mut self, text: &str, line: u32, file: &str, metadata: &mut Metadata) -> Result<()> {
        let wrong = |message: String| Error::failed(format!("`{file}`, line {line}: {message}"));
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        match word.to_ascii_lowercase().as_str() {
            "no-transaction" => self.no_transaction.push(line),
            "timeout" | "statement-timeout" => {
                metadata.statement_timeout = Some(duration(rest).map_err(wrong)?);
            }
            "lock-timeout" => metadata.lock_timeout = Some(duration(rest).map_err(wrong)?),
            "retry" => {
                let attempts = rest.parse().ok().filter(|attempts| *attempts > 0);
                let told = || wrong(format!("`retry {rest}` must be a number of attempts, the first one included"));
                metadata.retry = Some(attempts.ok_or_else(told)?);
            }
            "env" => {
                let names = words(rest);
                if names.is_empty() {
                    return Err(wrong("`env` needs the names of environments".to_owned())
                        .hint("-- ripcord: env staging, production"));
                }
                metadata.environments.extend(names);
            }
            "depends-on" => {
                let names = words(rest);
                if names.is_empty() {
                    return Err(wrong("`depends-on` needs the names of migrations".to_owned()));
                }
                metadata.dependencies.extend(names);
            }
            "batch" => self.batches.push(Batch::parse(rest, line, duration).map_err(wrong)?),
            "allow" => {
                let (rule, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                let reason = reason.trim();
                if rule.is_empty() || reason.is_empty() {
                    return Err(wrong("`allow` needs a rule and a reason".to_owned())
                        .hint("-- ripcord: allow destructive the column has been empty since May"));
                }
                metadata.allow.insert(rule.to_owned(), reason.to_owned());
            }
            _ => {
                return Err(wrong(format!("`{word}` is no directive of ripcord's"))
                    .because(
                        "known: `no-transaction`, `timeout`, `lock-timeout`, `retry`, `env`, `depends-on`, `batch`, `allow`",
                    ));
            }
        }
        Ok(())
    }
}

/// `500ms`, `30s`, `5m`, `1h`.
pub(super) fn duration(text: &str) -> std::result::Result<Duration, String> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let milliseconds = match unit.trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "" if !number.is_empty() => {
            return Err(format!("`{text}` has no unit: write `{text}s` or `{text}ms`"));
        }
        _ => {
            return Err(format!("`{text}` is no duration: write it like `30s`, `5m` or `500ms`"));
        }
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(milliseconds))
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is no duration: write it like `30s`, `5m` or `500ms`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_in_quotes_are_none() {
        let text =
            "\u{feff}-- a\r\n  --   b \nselect 1; -- c\nselect '\n-- d\n', $$\n-- e\n$$;\n/*\n-- f\n*/\n--- UP ---";
        let found: Vec<(u32, &str)> = comment_lines(text).iter().map(|comment| (comment.line, comment.text)).collect();
        assert_eq!(found, [(1, "a"), (2, "b"), (12, "UP ---")]);
        assert_eq!(marker(comment_lines(text).last().unwrap()), "UP");
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("30").unwrap_err(), "`30` has no unit: write `30s` or `30ms`");
        for wrong in ["", "s", "5 years", "-1s", "1.5h", "99999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn directives_are_read_and_mistakes_are_told() {
        let text = "-- ripcord: no-transaction\n-- ripcord: retry 5\n-- ripcord: env staging, production\n-- ripcord: depends-on d.sql e\n-- ripcord: batch size=10 pause=5ms\n-- RIPCORD: timeout 5m\n-- ripcord: lock-timeout 3s\n-- ripcord: allow destructive nobody reads it\n-- @depends-on: a.sql\n-- Dependencies: b.sql, c\n-- Author: Ann\n";
        let mut metadata = Metadata::default();
        let directives = directives(&comment_lines(text), "f.sql", &mut metadata).unwrap();
        assert_eq!(directives.no_transaction, [1]);
        assert_eq!(metadata.statement_timeout, Some(Duration::from_secs(300)));
        assert_eq!(metadata.lock_timeout, Some(Duration::from_secs(3)));
        assert_eq!(metadata.allow["destructive"], "nobody reads it");
        assert_eq!(metadata.dependencies, ["d.sql", "e", "a.sql", "b.sql", "c"]);
        assert_eq!(
            (metadata.retry, metadata.environments),
            (Some(5), vec!["staging".to_owned(), "production".to_owned()])
        );
        assert_eq!((directives.batches[0].size, directives.batches[0].line), (10, 5));
        assert_eq!(metadata.author.as_deref(), Some("Ann"));
        let text = "-- Dependencies: none (the first)\n-- Dependencies: a.sql (users), the users table\n-- Dependencies:\n--   - b.sql\n--   c.sql\n-- d.sql is not one\n";
        let mut metadata = Metadata::default();
        super::directives(&comment_lines(text), "f.sql", &mut metadata).unwrap();
        assert_eq!(metadata.dependencies, ["a.sql", "b.sql", "c.sql"]);
        assert_eq!((metadata.remarks.len(), metadata.remarks[0].line), (1, 2));
        for (wrong, says) in [
            ("\n-- ripcord: no-transactions", "`f.sql`, line 2: `no-transactions`"),
            ("-- ripcord: timeout 5", "line 1: `5` has no unit"),
            ("-- ripcord: allow destructive", "line 1: `allow` needs"),
            ("-- ripcord:", "line 1: ``"),
            ("-- ripcord: retry no", "line 1: `retry no`"),
            ("-- ripcord: env", "line 1: `env` needs"),
            ("-- ripcord: batch 100", "line 1: `100` is nothing"),
        ] {
            let error = super::directives(&comment_lines(wrong), "f.sql", &mut Metadata::default()).unwrap_err();
            assert!(error.message().contains(says), "{error}");
        }
    }
}

//! `-- @metadata {JSON over several comment lines}`, then `-- UP` and `-- DOWN`.

use std::time::Duration;

use serde_json::Value;

use super::super::{Metadata, Remark};
use super::comments::{CommentLine, marker};
use super::layouts::{Halves, Layout, Page};
use crate::error::{Error, Result};

pub(super) struct MetadataLayout;

impl Layout for MetadataLayout {
    fn name(&self) -> &'static str {
        "metadata"
    }

    fn claims(&self, page: &Page<'_>) -> Option<&'static str> {
        if page.comments.iter().any(|comment| begins_metadata(comment).is_some()) {
            Some("@metadata")
        } else if page.comments.iter().any(is_marker) {
            Some("an UP or DOWN marker")
        } else {
            None
        }
    }

    fn read(&self, page: &Page<'_>, metadata: &mut Metadata) -> Result<Halves> {
        read_metadata(page, metadata)?;
        halves(page)
    }
}

fn is_marker(comment: &CommentLine<'_>) -> bool {
    matches!(marker(comment).as_str(), "UP" | "DOWN")
}

fn halves(page: &Page<'_>) -> Result<Halves> {
    let find = |wanted: &str| -> Result<Option<&CommentLine<'_>>> {
        let mut found = page.comments.iter().filter(|comment| marker(comment) == wanted);
        let first = found.next();
        match (first, found.next()) {
            (Some(first), Some(second)) => Err(Error::failed(format!(
                "`{}`, line {}: a second `-- {wanted}` marker; the first is in line {}",
                page.file, second.line, first.line
            ))),
            _ => Ok(first),
        }
    };
    let (up, down) = (find("UP")?, find("DOWN")?);
    let first = match (up, down) {
        (Some(up), Some(down)) => Some(if up.start < down.start { up } else { down }),
        // Without `-- UP`, what stands before `-- DOWN` is UP.
        (up, _) => up,
    };
    if let Some(first) = first.filter(|first| !page.is_blank(page.before(first))) {
        return Err(Error::failed(format!(
            "`{}`, line {}: SQL stands before the `-- {}` marker",
            page.file,
            first.line,
            marker(first)
        ))
        .hint("move it below the marker that it belongs to"));
    }
    Ok(match (up, down) {
        (Some(up), Some(down)) if down.start < up.start => {
            Halves { up: page.between(up, None), down: Some(page.between(down, Some(up))) }
        }
        (Some(up), down) => Halves { up: page.between(up, down), down: down.map(|down| page.between(down, None)) },
        (None, Some(down)) => Halves { up: page.before(down), down: Some(page.between(down, None)) },
        (None, None) => Halves { up: page.whole(), down: None },
    })
}

fn begins_metadata<'a>(comment: &CommentLine<'a>) -> Option<&'a str> {
    let (word, rest) = comment.text.split_at_checked("@metadata".len())?;
    (word.eq_ignore_ascii_case("@metadata") && !rest.starts_with(char::is_alphanumeric)).then(|| rest.trim_start())
}

fn read_metadata(page: &Page<'_>, metadata: &mut Metadata) -> Result<()> {
    let mut blocks =
        page.comments.iter().enumerate().filter_map(|(at, comment)| Some((at, comment, begins_metadata(comment)?)));
    let Some((at, first, begins)) = blocks.next() else {
        return Ok(());
    };
    let wrong = |line: u32, message: String| Error::failed(format!("`{}`, line {line}: {message}", page.file));
    if let Some((_, second, _)) = blocks.next() {
        let message = format!("a second `@metadata`; the first is in line {}", first.line);
        return Err(wrong(second.line, message));
    }
    // The comment lines that follow without a gap; the JSON ends where it ends.
    let mut json = begins.to_owned();
    for (comment, line) in page.comments.iter().skip(at + 1).zip(first.line.saturating_add(1)..) {
        if comment.line != line || is_marker(comment) {
            break;
        }
        json.push('\n');
        json.push_str(comment.text);
    }
    let mut values = serde_json::Deserializer::from_str(&json).into_iter::<Value>();
    let value = match values.next() {
        Some(Ok(value)) => value,
        Some(Err(error)) => {
            let below = u32::try_from(error.line().saturating_sub(1)).unwrap_or(u32::MAX);
            let line = first.line.saturating_add(below);
            return Err(wrong(line, "the `@metadata` is no valid JSON".to_owned()).because(error));
        }
        None => {
            let message = "`@metadata` without its JSON, which begins with `{` in the same line";
            return Err(wrong(first.line, message.to_owned()));
        }
    };
    let Value::Object(entries) = value else {
        return Err(wrong(first.line, "the `@metadata` is no JSON object".to_owned()));
    };
    for (key, value) in entries {
        let known = take(metadata, &key, &value)
            .map_err(|expected| wrong(first.line, format!("`{key}` in `@metadata` must be {expected}")))?;
        if !known {
            metadata.remarks.push(Remark {
                rule: "metadata",
                line: first.line,
                message: format!("`{key}` in `@metadata` is not known to ripcord"),
            });
        }
    }
    Ok(())
}

/// Takes one entry over. `Ok(false)`: the key is not known. `Err`: what the value must be.
fn take(metadata: &mut Metadata, key: &str, value: &Value) -> Result<bool, &'static str> {
    if value.is_null() {
        return Ok(true);
    }
    let text = || value.as_str().map(str::to_owned).ok_or("a text");
    let flag = || value.as_bool().ok_or("`true` or `false`");
    let texts = || {
        let items = value.as_array().ok_or("a list of texts")?;
        let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
        texts.collect::<Option<Vec<_>>>().ok_or("a list of texts")
    };
    let one_of = |known: &[&str], expected| {
        let text = text()?;
        known.contains(&text.as_str()).then_some(text).ok_or(expected)
    };
    match key {
        "author" => metadata.author = Some(text()?),
        "description" => metadata.description = Some(text()?),
        "breakingChange" => metadata.breaking = flag()?,
        "estimatedDuration" => {
            let milliseconds = value.as_u64().ok_or("a whole number of milliseconds")?;
            metadata.estimated_duration = Some(Duration::from_millis(milliseconds));
        }
        "dataVolume" => {
            let known = ["small", "medium", "large"];
            metadata.data_volume = Some(one_of(&known, "`small`, `medium` or `large`")?);
        }
        "risk" => {
            let known = ["low", "medium", "high"];
            metadata.risk = Some(one_of(&known, "`low`, `medium` or `high`")?);
        }
        "tags" => metadata.tags = texts()?,
        "dependencies" => metadata.dependencies.extend(texts()?),
        "requiresDowntime" => metadata.requires_downtime = flag()?,
        "affectedTables" => metadata.affected_tables = texts()?,
        "rollbackStrategy" => metadata.rollback_strategy = Some(text()?),
        _ => return Ok(false),
    }
    Ok(true)
}

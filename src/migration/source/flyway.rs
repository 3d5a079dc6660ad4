//! Flyway's and refinery's names: `V1.2__name.sql`. `U1__name.sql` is the DOWN of `V1__…` when there is one (Flyway);
//! alone it is an UP like the others (refinery). What is repeatable or a baseline is not read yet.

use std::path::{Path, PathBuf};

use super::super::lexer::{Kind, Lexer, Token};
use super::super::split::line_column;
use super::super::{Metadata, Remark};
use super::layouts::{Halves, Layout, Page};
use crate::error::{Error, Result};

pub(super) struct Flyway;

impl Layout for Flyway {
    fn name(&self) -> &'static str {
        "flyway"
    }

    fn claims(&self, page: &Page<'_>) -> Option<&'static str> {
        let stem = super::names::stem(page.file)?;
        version(stem).is_some().then_some("Flyway's or refinery's name `V1__name`")
    }

    fn read(&self, page: &Page<'_>, metadata: &mut Metadata) -> Result<Halves> {
        // Flyway would put a value there, refinery would not: the text does not say whose it is.
        if let Some((line, placeholder)) = placeholder(page.text) {
            metadata.remarks.push(Remark {
                rule: "placeholder",
                line,
                message: format!("`{placeholder}` would go to the server as it stands, and Flyway puts a value there"),
            });
        }
        Ok(Halves { up: page.whole(), down: None })
    }
}

/// The first `${…}` outside comments, and its line.
fn placeholder(text: &str) -> Option<(u32, &str)> {
    let mut comments: Option<Vec<Token>> = None;
    for (at, _) in text.match_indices("${") {
        let rest = text.get(at..).unwrap_or_default();
        let end = rest
            .find(|one: char| one == '}' || one.is_whitespace())
            .filter(|end| rest.get(*end..*end + 1) == Some("}"));
        let Some(end) = end else { continue };
        let all = || Lexer::new(text).map_while(std::result::Result::ok);
        let comments = comments.get_or_insert_with(|| all().filter(|token| token.kind == Kind::Comment).collect());
        if !comments.iter().any(|comment| comment.start <= at && at < comment.end) {
            return Some((line_column(text, at, 1).0, rest.get(..=end).unwrap_or_default()));
        }
    }
    None
}

/// The version and the name in `V1_2__name`; Flyway writes `1_2` for `1.2`.
pub(super) fn version(stem: &str) -> Option<(char, String, &str)> {
    let (numbers, name) = stem.get(1..)?.split_once("__")?;
    let kind = stem.chars().next().filter(|kind| matches!(kind, 'V' | 'U'))?;
    let mut parts = numbers.split(['.', '_']);
    let shaped = parts.all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    shaped.then(|| (kind, numbers.replace('_', "."), name))
}

/// Refuses what is meant to run in another way than once and in order, when there are versions of Flyway's beside.
pub(super) fn refuse_unread(files: &std::collections::BTreeMap<PathBuf, String>) -> Result<()> {
    if !files.values().any(|stem| version(stem).is_some()) {
        return Ok(());
    }
    for (path, stem) in files {
        let conf = path.with_file_name(format!("{}.conf", name(path)));
        if version(stem).is_some() && conf.exists() {
            return Err(Error::failed(format!(
                "`{}` says how Flyway runs `{}`, and ripcord does not read it yet",
                name(&conf),
                name(path)
            ))
            .because("it may say that the migration is not to be run, or outside a transaction")
            .hint(
                "write `-- ripcord: no-transaction` or `-- ripcord: env NAMES` into the migration, and remove the file",
            ));
        }
        let repeatable = stem.starts_with("R__");
        let baseline = stem.starts_with('B') && version(&stem.replacen('B', "V", 1)).is_some();
        if repeatable || baseline {
            let what = if repeatable { "a repeatable migration" } else { "a baseline" };
            return Err(Error::failed(format!(
                "`{}` is {what} of Flyway's, which ripcord does not read yet",
                name(path)
            ))
            .hint("make it a migration with a version, or move it out of the folder"));
        }
    }
    Ok(())
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

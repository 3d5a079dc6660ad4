//! `backup import`: a dump that pg_dump made becomes a backup like any other.
//!
//! The dump is loaded into a scratch database, and that is backed up: so it is proved to be loadable, and has digests,
//! an inventory and everything else that a backup has. It counts as manual, and its manifest has the tag
//! [`IMPORTED`]: what it holds is older than it says, so it is never what `latest` means.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::backup::{self, Taken};
use super::context::{self, Context, Live, blocking, stopped};
use super::source;
use crate::clock;
use crate::control;
use crate::error::{Error, Result};
use crate::ids::Lineage;
use crate::manifest::{IMPORTED, Purpose};
use crate::postgres::{Session, databases, load};
use crate::store::Mark;

/// What a dump is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// `pg_dump --format=custom`, compressed or not.
    Custom,
    /// `pg_dump --format=directory`.
    Directory,
    /// `pg_dump --format=tar`.
    Tar,
    /// `pg_dump --format=plain`.
    Sql,
    /// The same through gzip.
    SqlGz,
}

/// What to import.
#[derive(Clone, Debug)]
pub struct Request {
    /// The dump.
    pub file: PathBuf,
    /// Its format; `None`: as it looks.
    pub format: Option<Format>,
    /// Tags to give the backup.
    pub tags: Vec<String>,
    /// Leave out who owns what and who may do what.
    pub no_owner: bool,
}

/// Imports a dump into the target's lineage. The target itself is not touched but for its history.
pub async fn import(ctx: &Context, request: &Request) -> Result<(Taken, Format)> {
    ctx.keys()?;
    ctx.store.objects().check_writable()?;
    let format = match request.format {
        Some(format) => format,
        None => detect(&request.file)?,
    };
    let file = request.file.canonicalize().map_err(|error| unreadable(&request.file, &error))?;
    let live = context::open(ctx).await?;
    let properties = databases::read_properties(live.maintenance(), ctx.target.database()).await?;
    let scratch = databases::scratch_name();
    let comment = format!(
        "{} for an import into {}; may be dropped when that is over",
        databases::SCRATCH_COMMENT,
        ctx.target.database()
    );
    ctx.progress.began("load", format!("loading `{}` into `{scratch}`", request.file.display()));
    let oid = databases::create(live.maintenance(), &scratch, &properties, &comment).await?;

    let copy = ctx.of_copy(&scratch);
    let work = async {
        fill(&copy, &live, &file, format, request.no_owner).await?;
        ctx.progress.finished("load", "the dump is loaded");
        let mut tags = vec![IMPORTED.to_owned()];
        tags.extend(request.tags.iter().filter(|tag| *tag != IMPORTED).cloned());
        let wanted = backup::Request {
            purpose: Purpose::Manual,
            run: None,
            tags: tags.clone(),
            before: Vec::new(),
            properties: Some(properties),
        };
        let taken = backup::take(&copy, &live, &wanted).await?;
        mark(ctx, &live, &taken, tags).await?;
        Ok(taken)
    };
    let result = tokio::select! {
        result = work => result,
        () = ctx.cancelled() => Err(stopped()),
    };
    if let Err(left) = databases::drop_scratch(live.maintenance(), &scratch, Some(oid)).await {
        ctx.progress.warn(format!("the scratch database `{scratch}` could not be removed: {left}"));
    }
    let taken = result.as_ref().ok().map(|taken| taken.id);
    let detail = serde_json::json!({ "file": file.display().to_string(), "format": format, "backup": taken });
    control::audit(live.session.client(), None, "backup import", &detail, None).await?;
    live.session.close().await;
    live.guard.release().await?;
    result.map(|taken| (taken, format))
}

async fn fill(copy: &Context, live: &Live, file: &Path, format: Format, no_owner: bool) -> Result<()> {
    let jobs =
        matches!(format, Format::Custom | Format::Directory).then(|| source::restore_jobs(copy.settings.backup.jobs));
    let said = match format {
        Format::Custom | Format::Directory | Format::Tar => {
            load::load_file(&live.tools, &copy.target, file, jobs, no_owner).await?
        }
        Format::Sql | Format::SqlGz => {
            let lines = open_script(file, format).map_err(|error| unreadable(file, &error))?;
            let left_out = load::run_script(&copy.target, load::Script { lines, no_owner }).await?;
            left_out.into_iter().map(|what| format!("left out of the script: {what}")).collect()
        }
    };
    for warning in said {
        copy.progress.warn(warning);
    }
    // The dump may have brought our schema with it, and with it what was applied then.
    let session = Session::connect(&copy.target, "import", copy.settings.timeouts.connect).await?;
    let ensured = control::ensure(session.client(), live.lineage).await;
    session.close().await;
    ensured.map_err(|error| error.context("the dump has a schema `ripcord` of its own")).map(drop)
}

/// Tags as a list shows them: the manifest has them as well, where nobody can change them.
async fn mark(ctx: &Context, live: &Live, taken: &Taken, tags: Vec<String>) -> Result<()> {
    let (store, id, lineage): (_, _, Lineage) = (ctx.store.clone(), taken.id, live.lineage);
    blocking(move || {
        for tag in tags {
            store.mark(lineage, id, &Mark::Tag { at: clock::now(), tag })?;
        }
        Ok(())
    })
    .await
}

fn open_script(file: &Path, format: Format) -> std::io::Result<Box<dyn BufRead + Send>> {
    const BUFFER_BYTES: usize = 1 << 20;
    let file = File::open(file)?;
    Ok(match format {
        // Several members one after the other are what `cat a.gz b.gz` gives, and pigz.
        Format::SqlGz => Box::new(BufReader::with_capacity(BUFFER_BYTES, flate2::read::MultiGzDecoder::new(file))),
        _ => Box::new(BufReader::with_capacity(BUFFER_BYTES, file)),
    })
}

/// What a file looks like. Sources: `pg_backup_archiver.c` (`_discoverArchiveFormat`), RFC 1952.
fn detect(file: &Path) -> Result<Format> {
    let failed = |error: std::io::Error| unreadable(file, &error);
    if file.is_dir() {
        return match file.join("toc.dat").exists() {
            true => Ok(Format::Directory),
            false => Err(Error::usage(format!("`{}` is a folder without a `toc.dat`", file.display()))
                .hint("name the folder that pg_dump --format=directory wrote")),
        };
    }
    let head = |source: &mut dyn Read| -> std::io::Result<Vec<u8>> {
        let mut head = Vec::new();
        source.take(512).read_to_end(&mut head)?;
        Ok(head)
    };
    let mut opened = File::open(file).map_err(failed)?;
    let begins = head(&mut opened).map_err(failed)?;
    if begins.starts_with(b"\x1f\x8b") {
        let again = File::open(file).map_err(failed)?;
        let inside = head(&mut flate2::read::MultiGzDecoder::new(again)).map_err(failed)?;
        return match look(&inside) {
            Some(Format::Sql) => Ok(Format::SqlGz),
            _ => Err(Error::usage(format!("`{}` is an archive within gzip", file.display())).hint("unpack it: gunzip")),
        };
    }
    look(&begins).ok_or_else(|| {
        Error::usage(format!("`{}` is no dump that is known here", file.display()))
            .because("it is neither of pg_dump's formats, nor SQL, nor SQL within gzip")
            .hint("name what pg_dump wrote; other compression has to be taken off before")
    })
}

fn look(begins: &[u8]) -> Option<Format> {
    if begins.starts_with(b"PGDMP") {
        Some(Format::Custom)
    } else if begins.get(257..262) == Some(b"ustar") {
        Some(Format::Tar)
    } else if !begins.is_empty() && !begins.contains(&0) && !begins.starts_with(b"ripcord\n") {
        // The end of what was read may cut a letter.
        let text = std::str::from_utf8(begins).map_or_else(|error| error.valid_up_to(), str::len);
        (text + 4 > begins.len()).then_some(Format::Sql)
    } else {
        None
    }
}

fn unreadable(file: &Path, error: &std::io::Error) -> Error {
    Error::usage(format!("`{}` cannot be read", file.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_beginnings() {
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert_eq!(look(b"PGDMP\x01\x0e"), Some(Format::Custom));
        assert_eq!(look(&tar), Some(Format::Tar));
        assert_eq!(look("-- é".as_bytes()), Some(Format::Sql));
        assert_eq!(look(&"-- é".as_bytes()[..4]), Some(Format::Sql));
        for other in [&b""[..], b"\x28\xb5\x2f\xfd\x00", b"ripcord\n", b"\xff\xfe-\xe9-\xe9-\xe9"] {
            assert_eq!(look(other), None, "{other:?}");
        }
    }
}

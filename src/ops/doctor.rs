//! `doctor`: what would work here, and what would not, before it is needed.

use serde::Serialize;

use super::context::{Context, blocking};
use super::rungs::{self, RestoreWay};
use super::status;
use crate::error::{Error, Result};
use crate::keys::DataKey;
use crate::postgres::preflight;
use crate::postgres::{Session, guard};
use crate::settings::Writes;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It works.
    Ok,
    /// It works, with something to know.
    Warning,
    /// It does not work; backups or runs would fail.
    Failed,
}

/// One line of the doctor.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found.
    pub detail: String,
    /// What to do.
    pub hint: Option<String>,
}

/// Looks at everything, and goes on after a failure. `no_store`: why the store could not even be opened; the
/// context's own is not looked at then.
pub async fn examine(ctx: &Context, no_store: Option<Error>) -> Vec<Check> {
    let mut checks = Vec::new();
    key(ctx, &mut checks);
    let has_store = no_store.is_none();
    match no_store {
        None => store(ctx, &mut checks).await,
        Some(error) => push(&mut checks, "store", Err(error)),
    }
    let session = match ctx.connect("doctor").await {
        Ok(session) => {
            push(&mut checks, "server", Ok(format!("{} reached", ctx.target.redacted())));
            Some(session)
        }
        Err(error) => {
            push(&mut checks, "server", Err(error));
            None
        }
    };
    if let Some(session) = session {
        server(ctx, &session, &mut checks).await;
        if has_store {
            drilled(ctx, &mut checks).await;
        }
    }
    checks
}

fn push(checks: &mut Vec<Check>, name: &'static str, result: Result<String>) {
    checks.push(match result {
        Ok(detail) => Check { name, verdict: Verdict::Ok, detail, hint: None },
        Err(error) => Check {
            name,
            verdict: Verdict::Failed,
            detail: error.one_line(),
            hint: error.hint_text().map(str::to_owned),
        },
    });
}

fn warn(checks: &mut Vec<Check>, name: &'static str, detail: impl Into<String>, hint: Option<&str>) {
    checks.push(Check { name, verdict: Verdict::Warning, detail: detail.into(), hint: hint.map(str::to_owned) });
}

/// A canary is wrapped and unwrapped with every key that is held.
fn key(ctx: &Context, checks: &mut Vec<Check>) {
    let tried = ctx.keys().and_then(|ring| {
        let backup = crate::ids::BackupId::new();
        for key in ring.keys() {
            let wrap = key.wrap(backup, &DataKey::generate());
            ring.unwrap(backup, &[wrap])?;
        }
        Ok(format!("key id {}", ring.keys().iter().map(|key| key.id().0).collect::<Vec<_>>().join(", ")))
    });
    push(checks, "key", tried);
}

async fn store(ctx: &Context, checks: &mut Vec<Check>) {
    let store = ctx.store.clone();
    let tried = blocking(move || {
        store.objects().check_writable()?;
        let free = store
            .objects()
            .free_bytes()?
            .map(|free| format!(", {} free", super::backup::bytes(free)))
            .unwrap_or_default();
        Ok(format!("{} can be written{free}", store.location()))
    })
    .await;
    push(checks, "store", tried);
    openers(ctx, checks).await;
    if let Some(why) = ctx.store.objects().ephemeral() {
        let failed = ctx.settings.environment.protected && ctx.settings.environment.name.is_some();
        checks.push(Check {
            name: "store lasts",
            verdict: if failed { Verdict::Failed } else { Verdict::Warning },
            detail: format!("backups would not outlive this machine's restart: {why}"),
            hint: Some("name a folder on a lasting disk: --store /var/backups/ripcord".to_owned()),
        });
    }
}

/// Whether the keys beside the main one open what is there: a recovery key is worth what it opens.
async fn openers(ctx: &Context, checks: &mut Vec<Check>) {
    let mut wanted: Vec<(String, &str)> =
        ctx.settings.offline_keys.iter().map(|id| (id.clone(), "the key kept elsewhere")).collect();
    if let Ok(ring) = ctx.keys() {
        wanted.extend(ring.keys().iter().skip(1).map(|key| (key.id().0, "the recovery key")));
    }
    if wanted.is_empty() {
        return;
    }
    let store = ctx.store.clone();
    let looked = blocking(move || {
        let mut backups = Vec::new();
        for lineage in store.lineages()? {
            for id in store.backups(lineage)? {
                if let Ok(manifest) = crate::manifest::decode_clear(&store.manifest(lineage, id)?) {
                    let ids: Vec<String> = manifest.wraps.into_iter().map(|wrap| wrap.key_id.0).collect();
                    backups.push((manifest.clear.created_at, ids));
                }
            }
        }
        Ok(backups)
    })
    .await;
    let backups = match looked {
        Ok(backups) => backups,
        Err(error) => return push(checks, "recovery key", Err(error)),
    };
    for (id, what) in wanted {
        let shut: Vec<_> = backups.iter().filter(|(_, ids)| !ids.contains(&id)).collect();
        match shut.iter().map(|(at, _)| at).max() {
            None => {
                push(checks, "recovery key", Ok(format!("{what} `{id}` is listed by all {} backups", backups.len())))
            }
            Some(newest) => warn(
                checks,
                "recovery key",
                format!(
                    "{what} `{id}` does not open {} of {} backups, the newest of {}",
                    shut.len(),
                    backups.len(),
                    newest.format("%Y-%m-%d %H:%M UTC")
                ),
                Some(match what {
                    "the recovery key" => "ripcord key add",
                    _ => "with that key at hand: ripcord key add --new-key-file FILE",
                }),
            ),
        }
    }
}

async fn server(ctx: &Context, session: &Session, checks: &mut Vec<Check>) {
    push(checks, "tools", ctx.tools(session).map(|tools| format!("{} at {}", tools.version, tools.pg_dump.display())));
    push(checks, "control schema", control_schema(session).await);
    let maintenance = match guard::open_maintenance(&ctx.target, &ctx.settings).await {
        Ok((target, maintenance)) => {
            push(checks, "maintenance database", Ok(format!("`{}`", target.database())));
            maintenance
        }
        Err(error) => return push(checks, "maintenance database", Err(error)),
    };
    let findings = match preflight::look(&ctx.target, session, &maintenance).await {
        Ok(findings) => findings,
        Err(error) => return push(checks, "preflight", Err(error)),
    };
    match findings.row_security.first() {
        Some(first) => push(
            checks,
            "row security",
            Err(Error::failed(format!("hides rows of {first} from `{}`", ctx.target.user()))),
        ),
        None => push(checks, "row security", Ok("hides nothing from this role".to_owned())),
    }
    ladder(ctx, &findings, checks);
    match super::adopt::unadopted(ctx, session).await {
        Ok(others) => others.iter().for_each(|other| {
            let detail = format!("`{}`, owned by `{}`, was not adopted", other.table, other.owner);
            warn(checks, "another tool's history", detail, Some("ripcord adopt --dry-run"));
        }),
        Err(error) => push(checks, "another tool's history", Err(error)),
    }
    if let Ok(strays) = status::stray_scratch(ctx).await
        && !strays.is_empty()
    {
        let hint = format!("when no drill or restore is at work there: ripcord aside drop {}", strays[0]);
        warn(checks, "leftovers", format!("scratch databases: {}", strays.join(", ")), Some(&hint));
    }
}

async fn control_schema(session: &Session) -> Result<String> {
    Ok(match crate::control::inspect(session.client()).await? {
        crate::control::State::Absent => "not there yet; the first run makes it".to_owned(),
        crate::control::State::Present { lineage, version } => format!("version {version}, lineage {lineage}"),
    })
}

fn ladder(ctx: &Context, findings: &preflight::Findings, checks: &mut Vec<Check>) {
    let rungs = rungs::judge(findings, false, false, ctx.would_stay_behind());
    let verdict = if rungs.restore == RestoreWay::Swap { Verdict::Ok } else { Verdict::Warning };
    checks.push(Check { name: "ladder", verdict, detail: rungs.tell(), hint: None });
    for warning in rungs.warnings {
        warn(checks, "ladder", warning, None);
    }
    let writes = match ctx.settings.writes {
        Writes::Refuse => {
            "refuse: writes after the backup are counted, and an unattended restore that would lose one is not done"
        }
        Writes::Fence => "fence: others can only read while a run lasts",
        Writes::AcceptLoss => "accept-loss: a restore may give up writes after the backup; they are counted",
    };
    push(checks, "writes", Ok(writes.to_owned()));
    if ctx.settings.writes == Writes::Fence {
        for leak in &findings.fence_leaks {
            warn(checks, "writes", format!("passes the fence: {leak}"), None);
        }
    }
    if findings.superuser {
        warn(
            checks,
            "role",
            format!(
                "`{}` is a superuser: code of the database's owner in a backup would run with its rights in a restore or a drill",
                ctx.target.user()
            ),
            Some("run restores and drills as a role with CREATEDB that is a member of the owning roles"),
        );
    }
}

async fn drilled(ctx: &Context, checks: &mut Vec<Check>) {
    let Ok(status) = status::status(ctx).await else { return };
    if let Some(error) = &status.wrong_key {
        push(checks, "key of the backups", Err(error.clone()));
    }
    for run in &status.unfinished {
        warn(checks, "runs", format!("run `{run}` was not finished"), Some("ripcord recover"));
    }
    match (&status.last_backup, status.last_drill) {
        (None, _) => warn(checks, "last backup", "there is none yet", Some("ripcord backup create")),
        (Some(item), _) => push(
            checks,
            "last backup",
            Ok(format!("`{}` of {}", item.id, item.created_at.format("%Y-%m-%d %H:%M UTC"))),
        ),
    }
    match status.last_drill {
        _ if status.drill_due.is_some() => {
            warn(checks, "last drill", status.drill_due.unwrap_or_default(), Some("ripcord drill latest"));
        }
        None if status.last_backup.is_some() => {
            warn(checks, "last drill", "no backup was ever really restored", Some("ripcord drill latest"))
        }
        Some(at) => push(checks, "last drill", Ok(format!("of {}", at.format("%Y-%m-%d %H:%M UTC")))),
        None => {}
    }
}

//! `key …`: make master keys, name those in use, and say who opens the backups of a store.

use std::io::IsTerminal;
use std::path::Path;

use ripcord::keys::{KeyId, KeyRing, MasterKey};
use ripcord::ops::keys::{self, Does, Line, Plan, Vault, Work};
use ripcord::ops::report::Outcome;
use ripcord::settings::KeySource;
use ripcord::{Error, Result};
use secrecy::ExposeSecret;
use serde_json::json;

use crate::app::{App, Exit};
use crate::args::{KeyCommand, NewKeyArgs, OldKeyArgs};
use crate::render::Renderer;

/// Makes a key: into a new file, or to a pipe.
pub fn generate(out: &Renderer, output: Option<&Path>) -> Result<Exit> {
    match output {
        Some(path) if path != Path::new("-") => {
            let key = MasterKey::generate();
            crate::config::key::write_file(path, &key.to_hex())?;
            out.data(&format!("key `{}` written to `{}`", key.id(), path.display()));
            for line in advice(path) {
                out.say(&line);
            }
            out.items(
                "key generate",
                Outcome::Done,
                &[json!({ "key_id": key.id(), "file": path.display().to_string() })],
            );
        }
        asked => {
            if out.style().json {
                return Err(Error::usage("a key's digits do not belong into a result")
                    .hint("ripcord --json key generate -o FILE"));
            }
            if asked.is_none() && std::io::stdout().is_terminal() {
                return Err(Error::usage("a key's digits are not shown on a terminal unasked")
                    .because("`-o FILE` writes them to a new file, `-o -` shows them all the same")
                    .hint("ripcord key generate -o /etc/ripcord/key"));
            }
            let key = MasterKey::generate();
            out.secret_data(key.to_hex().expose_secret());
            out.say(&format!("key `{}`", key.id()));
        }
    }
    Ok(Exit::DONE)
}

/// What to do with a new key file.
pub fn advice(path: &Path) -> [String; 2] {
    [
        "note: without this key no backup can be opened, and nobody can make it again".to_owned(),
        format!(
            "note: copy `{}` now to a place that survives this machine, such as a password manager",
            path.display()
        ),
    ]
}

/// Runs what needs settings.
pub async fn run(app: &App, command: KeyCommand) -> Result<Exit> {
    match command {
        KeyCommand::Generate { output } => generate(&app.out, output.as_deref()),
        KeyCommand::Id => id(app).await,
        KeyCommand::Add(args) => {
            let given = new_key(app, &args.new).await?;
            let old = old_key(app, &args.old).await?;
            let configured = app.key_ring().await?;
            let keys = given.map_or_else(|| configured.keys().to_vec(), |key| vec![key]);
            change(app, Work::Add { keys }, configured, old, None).await
        }
        KeyCommand::Rotate(args) => {
            let given = new_key(app, &args.new).await?;
            let other = old_key(app, &args.old).await?;
            let configured = app.key_ring().await?;
            let main = configured.primary().clone();
            if given.is_none() && other.is_none() {
                return Err(Error::usage("`key rotate` needs the key that comes, or the one that goes")
                    .because("`--new-key-file` and its like give the one, with the other configured; `--old-key-file` the other way round")
                    .hint("ripcord key generate -o FILE, then: ripcord key rotate --new-key-file FILE"));
            }
            let new = given.unwrap_or_else(|| main.clone());
            let old = other.clone().unwrap_or(main);
            if new.id() == old.id() {
                return Err(Error::usage(format!("the new key and the old one are both `{}`", new.id()))
                    .hint("ripcord key generate -o FILE, then: ripcord key rotate --new-key-file FILE"));
            }
            change(app, Work::Rotate { new, old, reencrypt: args.reencrypt }, configured, other, None).await
        }
        KeyCommand::Remove(args) => {
            let old = old_key(app, &args.old).await?;
            let configured = app.key_ring().await?;
            let key = KeyId(args.id.trim().to_ascii_lowercase());
            if key.0.len() != 16 || !key.0.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(Error::usage("a key id is 16 hexadecimal digits").hint("ripcord key id"));
            }
            change(app, Work::Remove { key }, configured, old, args.confirm_loss).await
        }
    }
}

/// Shows what would be done, or does it.
async fn change(
    app: &App,
    work: Work,
    configured: KeyRing,
    old: Option<MasterKey>,
    confirmed: Option<usize>,
) -> Result<Exit> {
    let mut at_hand: Vec<MasterKey> = old.into_iter().collect();
    match &work {
        Work::Add { keys } => at_hand.extend(keys.iter().cloned()),
        Work::Rotate { new, old, .. } => at_hand.extend([new.clone(), old.clone()]),
        Work::Remove { .. } => {}
    }
    let vault = Vault {
        store: app.store()?,
        ring: configured.with(&at_hand),
        configured,
        level: app.settings().backup.compression_level,
        progress: app.progress.clone(),
        faults: app.faults(),
        cancel: app.stop.clone(),
    };
    let plan = keys::plan(&vault, &work).await?;
    if app.resolved.dry_run {
        show(app, &work, &plan);
        if let Err(error) = plan.permits(confirmed) {
            app.out.warn(&format!("it would be refused: {}", error.one_line()));
        }
        return Ok(Exit::DONE);
    }
    plan.permits(confirmed)?;
    // Before it is done: afterwards it could not be undone.
    let shut: Vec<&Line> =
        plan.lines.iter().filter(|line| line.does == Does::Reencrypt && line.note.is_some()).collect();
    if let Some(note) = shut.first().and_then(|line| line.note.as_deref()) {
        app.out.warn(&format!("of {} backups: {note}", shut.len()));
    }
    app.approve(&format!(
        "Rewrite who opens {} backups",
        plan.lines.iter().filter(|line| line.does.changes()).count()
    ))?;
    // Without a database nothing is missing but the rows that tell of it.
    let ctx = match app.target() {
        Ok(_) => Some(app.context_with(vault.store.clone()).await?),
        Err(_) => None,
    };
    let done = keys::execute(&vault, ctx.as_ref(), &work, plan, confirmed).await?;
    let count = |of: &[Does]| done.lines.iter().filter(|line| of.contains(&line.does)).count();
    app.out.data(&format!(
        "{} backups: {} changed, {} as they should be, {} left alone, {} removed",
        done.lines.len(),
        count(&[Does::Add, Does::Exchange, Does::Reencrypt, Does::Remove, Does::Unproved]),
        count(&[Does::Nothing]),
        count(&[Does::Unopened]),
        count(&[Does::Delete]),
    ));
    tell_rest(app, &work, &done.lines);
    app.out.items(work.name(), Outcome::Done, &done.lines);
    Ok(Exit::DONE)
}

fn show(app: &App, work: &Work, plan: &Plan) {
    let rows: Vec<Vec<String>> = plan
        .lines
        .iter()
        .map(|line| {
            vec![
                line.id.to_string(),
                line.database.clone(),
                line.created_at.map(|at| at.format("%Y-%m-%d %H:%M:%S").to_string()).unwrap_or_default(),
                line.key_ids.join(" "),
                line.does.words().to_owned(),
                line.note.clone().unwrap_or_default(),
            ]
        })
        .collect();
    app.out.list(work.name(), &plan.lines, &["id", "database", "created", "keys", "would", ""], &rows);
}

/// What a person must still do or know.
fn tell_rest(app: &App, work: &Work, lines: &[Line]) {
    let unopened = lines.iter().filter(|line| line.does == Does::Unopened).count();
    if unopened > 0 {
        app.out.warn(&format!("{unopened} backups open with no key at hand, and were left alone: see --dry-run"));
    }
    match work {
        Work::Add { keys } => {
            for key in keys {
                app.out.say(&format!("key `{}` opens the backups of this store that are there now", key.id()));
            }
        }
        Work::Rotate { new, old, .. } => {
            app.out.say(&format!("note: key `{}` came, and key `{}` went", new.id(), old.id()));
            app.out.say("note: where the old key is still configured, configure the new one now, and run it once more");
            app.out.say("note: keep the old key until that is done; copies of the store made before still need it");
        }
        Work::Remove { key } => app.out.say(&format!("note: key `{key}` opens nothing in this store any more")),
    }
}

async fn new_key(app: &App, args: &NewKeyArgs) -> Result<Option<MasterKey>> {
    given(app, args.new_key_file.as_deref(), args.new_key_env.as_deref(), args.new_key_command.as_deref()).await
}

async fn old_key(app: &App, args: &OldKeyArgs) -> Result<Option<MasterKey>> {
    given(app, args.old_key_file.as_deref(), args.old_key_env.as_deref(), args.old_key_command.as_deref()).await
}

async fn given(
    app: &App,
    file: Option<&Path>,
    variable: Option<&str>,
    command: Option<&str>,
) -> Result<Option<MasterKey>> {
    let source = match (file, variable, command) {
        (Some(path), _, _) => KeySource::File(path.to_owned()),
        (_, Some(name), _) => match app.resolved.variables.get(name) {
            Some(found) => KeySource::Hex { variable: name.to_owned(), digits: found.text.to_owned().into() },
            None => return Err(Error::usage(format!("variable `{name}` is not set"))),
        },
        (_, _, Some(command)) => KeySource::Command(command.to_owned()),
        _ => return Ok(None),
    };
    app.key_from(&source).await.map(Some)
}

/// Prints the public names of the keys in use, the main one first.
async fn id(app: &App) -> Result<Exit> {
    let ring = app.key_ring().await?;
    let mut items = Vec::new();
    for (place, key) in ring.keys().iter().enumerate() {
        let id = key.id();
        app.out.data(&id.to_string());
        items.push(json!({ "key_id": id, "use": if place == 0 { "main" } else { "recovery" } }));
    }
    app.out.items("key id", Outcome::Done, &items);
    Ok(Exit::DONE)
}

//! `key …`: make master keys and name the one in use.

use std::io::IsTerminal;
use std::path::Path;

use ripcord::keys::MasterKey;
use ripcord::ops::report::Outcome;
use ripcord::{Error, Result};
use secrecy::ExposeSecret;
use serde_json::json;

use crate::app::{App, Exit};
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

/// Prints the public name of the key in use.
pub async fn id(app: &App) -> Result<Exit> {
    let id = app.key().await?.id();
    app.out.data(&id.to_string());
    app.out.items("key id", Outcome::Done, &[json!({ "key_id": id })]);
    Ok(Exit::DONE)
}

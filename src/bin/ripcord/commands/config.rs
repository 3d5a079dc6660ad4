//! `config`: the settings in effect and where each came from.

use ripcord::Result;

use crate::app::{App, Exit};

/// Prints them, secrets as `***`.
pub fn run(app: &App) -> Result<Exit> {
    let rows: Vec<Vec<String>> = app
        .resolved
        .entries
        .iter()
        .map(|entry| {
            let value = match entry.value.is_empty() {
                true => "-".to_owned(),
                false => entry.value.clone(),
            };
            vec![entry.key.to_owned(), value, entry.source.clone()]
        })
        .collect();
    app.out.list("config", &app.resolved.entries, &["key", "value", "source"], &rows);
    Ok(Exit::DONE)
}

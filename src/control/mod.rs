//! Our own tables in the target: the schema `ripcord`. SQL about them stands here and nowhere else.
//!
//! Every statement names its schema, and every operator outside a transaction of ours is written
//! `OPERATOR(pg_catalog.=)`: the owner of a database may set a `search_path` for everyone who connects
//! (`ALTER DATABASE … SET`), and an operator of theirs would run with our rights.

pub mod actor;
pub mod adopt;
pub mod carry;
mod compat;
pub mod history;
mod integrity;
pub mod known;
pub mod lock;
mod merge;
pub mod records;
pub mod releases;
pub mod schema;

pub use actor::os_user;
pub use carry::*;
pub use history::*;
pub use lock::*;
pub use merge::{holds_all, merge_rows};
pub use records::*;
pub use releases::*;
pub use schema::*;

use std::borrow::Cow;

use tokio_postgres::Client;

use crate::error::{Error, Result};
use crate::postgres::session::explain;

/// This binary's version, as it is written into rows.
const TOOL_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Turns the driver's error into ours, with what was being done in front.
fn while_doing(what: &'static str) -> impl Fn(tokio_postgres::Error) -> Error {
    move |error| explain(&error).context(what)
}

/// Text as PostgreSQL can hold it: a zero character becomes U+FFFD. Messages of programs may hold one.
fn clean(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

fn clean_option(text: Option<&str>) -> Option<Cow<'_, str>> {
    text.map(clean)
}

/// Runs `work` in a transaction of its own with a fixed `search_path`; must not be called inside one.
async fn in_transaction<T>(client: &Client, work: impl AsyncFnOnce() -> Result<T>) -> Result<T> {
    // language=SQL
    const BEGIN: &str = "begin isolation level read committed read write; \
                         set local search_path = pg_catalog, pg_temp";
    client.batch_execute(BEGIN).await.map_err(while_doing("a transaction could not begin"))?;
    match work().await {
        Ok(value) => {
            client
                .batch_execute("commit")
                .await
                .map_err(while_doing("the control schema's change was not committed"))?;
            Ok(value)
        }
        Err(error) => {
            // The first failure is the one to tell; where this fails too, the session's end rolls back.
            let _ = client.batch_execute("rollback").await;
            Err(error)
        }
    }
}

//! The server's and the driver's errors in our words.

use std::error::Error as _;
use std::io;

use tokio_postgres::error::DbError;

use crate::error::Error;
use crate::postgres::Target;

/// A server's or driver's error in our words: message, then DETAIL, server HINT and CONTEXT as causes;
/// SQLSTATE kept; connection loss marked.
pub fn explain(error: &tokio_postgres::Error) -> Error {
    if let Some(said) = error.as_db_error() {
        return explain_server(said);
    }
    if error.is_closed() {
        return Error::failed("the connection to the server was lost").with_connection_lost();
    }
    if let Some(cause) = io_cause(error) {
        return Error::failed("the connection to the server was lost").because(cause).with_connection_lost();
    }
    let explained = Error::failed(error.to_string());
    match error.source() {
        // The driver repeats some causes in its own message.
        Some(cause) if !error.to_string().contains(&cause.to_string()) => explained.because(cause),
        _ => explained,
    }
}

fn explain_server(said: &DbError) -> Error {
    let state = said.code().code();
    let mut explained = Error::failed(said.message()).with_sqlstate(state);
    for (what, text) in [("detail", said.detail()), ("server's hint", said.hint()), ("context", said.where_())] {
        if let Some(text) = text {
            explained = explained.because(format!("{what}: {text}"));
        }
    }
    if is_loss(state) { explained.with_connection_lost() } else { explained }
}

/// The server ended the session (57P01 to 57P03), or the connection is broken (class 08).
fn is_loss(state: &str) -> bool {
    // protocol_violation: the connection goes on, or never was.
    matches!(state, "57P01" | "57P02" | "57P03" | "57P05") || (state.starts_with("08") && state != "08P01")
}

/// The cause, when it is the connection that failed. The driver tells its kinds by their text alone, and a text
/// with a zero byte, which it refuses to send, has an `io::Error` for its cause too.
fn io_cause(error: &tokio_postgres::Error) -> Option<&io::Error> {
    let said = error.to_string();
    let kinds = ["error communicating with", "error connecting to", "error parsing response", "timeout waiting"];
    if kinds.iter().any(|kind| said.starts_with(kind)) { error.source()?.downcast_ref::<io::Error>() } else { None }
}

/// Whether TLS could not be agreed on.
pub(super) fn is_tls(error: &tokio_postgres::Error) -> bool {
    error.to_string().starts_with("error performing TLS handshake")
}

/// One notice on one line: severity and message.
pub(super) fn notice(said: &DbError) -> String {
    format!("{}: {}", said.severity().to_lowercase(), said.message())
}

/// An error of connecting, which names the target and tells what helps.
pub(super) fn explain_connect(error: &tokio_postgres::Error, target: &Target) -> Error {
    let explained = match error.as_db_error() {
        Some(said) => explain_refusal(said, target),
        None if is_tls(error) => explain_tls(error),
        None if error.source().is_some_and(|cause| cause.to_string() == "password missing") => {
            Error::failed("the server asks for a password, and none is given")
                .hint("set `PGPASSWORD`, add a line to `~/.pgpass`, or write it into the database URL")
        }
        None => match io_cause(error) {
            Some(cause) => explain_network(cause),
            None => explain(error),
        },
    };
    named(explained, target)
}

/// Says what could not be connected to.
pub(super) fn named(error: Error, target: &Target) -> Error {
    error.context(format!("cannot connect to `{}`", target.redacted()))
}

pub(super) fn explain_network(cause: &io::Error) -> Error {
    let unknown = cause.to_string().contains("failed to lookup address");
    let (fact, hint) = match cause.kind() {
        _ if unknown => ("the host's name is not known".to_owned(), "check the host in the database URL or `PGHOST`"),
        io::ErrorKind::ConnectionRefused => {
            ("no server listens there".to_owned(), "check that the server runs, its port, and `listen_addresses`")
        }
        io::ErrorKind::NotFound => (
            "there is no socket of a server in that folder".to_owned(),
            "check that the server runs, the socket's folder and the port",
        ),
        io::ErrorKind::PermissionDenied => {
            (cause.to_string(), "check who may open the server's socket, or use a host name")
        }
        io::ErrorKind::TimedOut => ("the server does not answer".to_owned(), "check host, port and firewall"),
        _ => (cause.to_string(), "check that the server runs and can be reached from here"),
    };
    Error::failed(fact).hint(hint).with_connection_lost()
}

fn explain_tls(error: &tokio_postgres::Error) -> Error {
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    if cause.contains("does not support TLS") {
        return Error::failed("TLS is required by `sslmode`, and the server does not offer it")
            .hint("turn `ssl` on at the server, or use `sslmode=prefer` where the network is trusted");
    }
    let explained = Error::failed("TLS could not be agreed on").because(&cause);
    if cause.contains("certificate") {
        explained.hint("check `sslrootcert`, and that the certificate names the host that is connected to")
    } else {
        explained
    }
}

fn explain_refusal(said: &DbError, target: &Target) -> Error {
    let explained = explain_server(said);
    let state = said.code().code();
    let message = said.message();
    match state {
        "28P01" => explained.hint(match target.password_origin() {
            Some(origin) => format!("the password that was used comes from {origin}"),
            None => "no password was given: set `PGPASSWORD` or add a line to `~/.pgpass`".to_owned(),
        }),
        "28000" if message.contains("pg_hba.conf") && message.contains("no encryption") => explained
            .hint("the server may let this in over TLS only: use `sslmode=require`, or add a line to its pg_hba.conf"),
        "28000" if message.contains("pg_hba.conf") => {
            explained.hint("add a line for this host, user and database to the server's pg_hba.conf, and reload it")
        }
        "28000" => explained.hint("check the user in the database URL or `PGUSER`"),
        "3D000" => explained.hint(
            "check the database's name in the database URL or `PGDATABASE`, or create it; \
             one that was backed up and is gone comes back by: ripcord restore latest",
        ),
        "42501" => explained.hint(format!("GRANT CONNECT ON DATABASE … TO \"{}\"", target.user())),
        "55000" => explained.hint("the database is closed to connections: see `ripcord status`, or `ripcord recover`"),
        "53300" => explained.hint("end sessions that are not needed, or raise `max_connections`"),
        "08P01" if message.contains("startup parameter") => {
            explained.hint("this is a connection pooler: give a URL that leads to PostgreSQL itself (DIRECT_URL)")
        }
        _ => explained,
    }
}

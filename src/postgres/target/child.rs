//! What a client program of PostgreSQL gets to reach the same database.

use std::ffi::OsString;

use secrecy::ExposeSecret;
use tokio_postgres::config::{ChannelBinding, TargetSessionAttrs};

use super::Target;

impl Target {
    /// libpq's variables for a child process that connects to this database as this role. They are all that
    /// it needs: no connection string stands in its arguments, where everyone could read it. `PGDATABASE`
    /// is taken literally by programs that are given no database's name, so that any name works.
    ///
    /// The password goes as `PGPASSWORD`, and where each of several hosts may have its own, as the
    /// password file's path.
    pub(crate) fn child_environment(&self) -> Vec<(String, OsString)> {
        let server = &self.server;
        let list = |item: &dyn Fn(&super::Host) -> String| server.hosts.iter().map(item).collect::<Vec<_>>().join(",");
        let mut variables: Vec<(String, OsString)> = vec![
            ("PGPORT".into(), list(&|host| host.port.to_string()).into()),
            ("PGUSER".into(), server.user.clone().into()),
            ("PGDATABASE".into(), self.database().into()),
            ("PGSSLMODE".into(), server.ssl_mode.as_str().into()),
            ("PGCONNECT_TIMEOUT".into(), server.connect_timeout.as_secs().max(2).to_string().into()),
            // Kerberos is not spoken by our own sessions, and looking for it costs a round trip.
            ("PGGSSENCMODE".into(), "disable".into()),
        ];
        let mut put = |name: &str, value: OsString| variables.push((name.to_owned(), value));
        if server.hosts.iter().any(|host| !host.name.is_empty()) {
            put("PGHOST", list(&|host| host.name.clone()).into());
        }
        if server.hosts.iter().any(|host| host.address.is_some()) {
            let address = |host: &super::Host| host.address.map(|address| address.to_string()).unwrap_or_default();
            put("PGHOSTADDR", list(&address).into());
        }
        match (&server.password, server.hosts.as_slice()) {
            (Some((password, _)), _) => put("PGPASSWORD", password.expose_secret().into()),
            (None, [host]) => {
                if let Some(password) = self.password(host) {
                    put("PGPASSWORD", password.expose_secret().into());
                }
            }
            (None, _) => {
                if let Some(path) = &server.pass_path {
                    put("PGPASSFILE", path.clone().into());
                }
            }
        }
        let files = &server.ssl_files;
        for (name, path) in
            [("PGSSLROOTCERT", &files.root), ("PGSSLCERT", &files.certificate), ("PGSSLKEY", &files.key)]
        {
            if let Some(path) = path {
                put(name, path.clone().into());
            }
        }
        if server.direct_tls {
            put("PGSSLNEGOTIATION", "direct".into());
        }
        match server.channel_binding {
            ChannelBinding::Disable => put("PGCHANNELBINDING", "disable".into()),
            ChannelBinding::Require => put("PGCHANNELBINDING", "require".into()),
            _ => {}
        }
        if server.session_attrs == TargetSessionAttrs::ReadWrite {
            put("PGTARGETSESSIONATTRS", "read-write".into());
        }
        if let Some(home) = &server.home {
            put("HOME", home.clone().into());
        }
        variables
    }

    /// `PGOPTIONS` for a child: the connection's own, then these settings.
    pub(crate) fn child_options(&self, settings: &[(&str, &str)]) -> OsString {
        let mut options = self.server.options.clone().unwrap_or_default();
        for (name, value) in settings {
            if !options.is_empty() {
                options.push(' ');
            }
            options.push_str("-c ");
            options.push_str(name);
            options.push('=');
            options.push_str(&escaped_option(value));
        }
        options.into()
    }
}

/// A value among start-up options: white space and backslashes are escaped with a backslash
/// (PostgreSQL documentation, libpq's `options`).
fn escaped_option(value: &str) -> String {
    let mut out = String::new();
    for c in value.chars() {
        if c.is_ascii_whitespace() || c == '\\' {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

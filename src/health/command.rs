//! Commands of the configuration: hooks and health checks.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::error::{Error, Result};

/// This much of the output's end is kept, in bytes.
const TAIL_BYTES: usize = 8 << 10;

/// Between SIGTERM and SIGKILL, and for output after the command's own end.
const GRACE: Duration = Duration::from_secs(1);

/// Runs a hook or health command with `sh -c` in its own process group, a cleared environment plus
/// `environment`, and a limit; returns its last output line on failure.
///
/// Of this process's environment it gets PATH, HOME, LANG, TZ and what begins with `LC_`. At the limit,
/// and when the future is dropped, the whole group is ended. What a command that ended well has left
/// running in the background goes on, but its output has no reader any more.
pub async fn run_command(
    command: &str,
    environment: &[(String, String)],
    limit: Duration,
) -> Result<()> {
    let shown = shown(command);
    let passed_on = std::env::vars_os().filter(|(name, _)| {
        name.to_str().is_some_and(|name| {
            matches!(name, "PATH" | "HOME" | "LANG" | "TZ") || name.starts_with("LC_")
        })
    });
    let child = Command::new("sh")
        .arg("-c")
        .arg(command)
        .env_clear()
        .envs(passed_on)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| {
            Error::failed(format!("`{shown}` could not be started by `sh -c`")).because(error)
        })?;
    let mut group = Group(child);
    let mut output = Output {
        stdout: group.0.stdout.take(),
        stderr: group.0.stderr.take(),
        tail: Vec::new(),
    };
    let Ok(ended) = timeout(limit, output.until_exit(&mut group.0)).await else {
        group.end().await;
        output.rest().await;
        return Err(output.explain(Error::failed(format!(
            "`{shown}` did not end within {limit:?}, and was stopped"
        ))));
    };
    let status = ended.map_err(|error| {
        Error::failed(format!("`{shown}` could not be waited for")).because(error)
    })?;
    if status.success() {
        return Ok(());
    }
    output.rest().await;
    Err(output.explain(Error::failed(format!("`{shown}` {}", ending(status)))))
}

/// A command as it is named in messages: one line, of bounded length.
pub(super) fn shown(command: &str) -> String {
    let mut lines = command.trim().lines();
    let first = lines.next().unwrap_or_default();
    let mut shown: String = first
        .chars()
        .filter(|c| !c.is_control())
        .take(120)
        .collect();
    if lines.next().is_some() || first.chars().count() > 120 {
        shown.push('…');
    }
    shown
}

fn ending(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("failed with exit status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "failed".to_owned(),
    }
}

/// A command and all that it started; dropped before its end, they are killed.
struct Group(Child);

impl Group {
    fn signal(&self, signal: Signal) {
        // While the command was not waited for, its number cannot belong to another group.
        let id = self.0.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = id.and_then(Pid::from_raw) {
            // Nothing to signal is as good.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Asks to end, then kills. The command is waited for last: until then its number is the group's.
    async fn end(&mut self) {
        self.signal(Signal::TERM);
        sleep(GRACE).await;
        self.signal(Signal::KILL);
        let _ = self.0.wait().await;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// The last part of what a command prints, both streams as they come.
struct Output {
    stdout: Option<tokio::process::ChildStdout>,
    stderr: Option<tokio::process::ChildStderr>,
    tail: Vec<u8>,
}

impl Output {
    async fn until_exit(&mut self, child: &mut Child) -> std::io::Result<ExitStatus> {
        loop {
            let piece = tokio::select! {
                status = child.wait() => return status,
                piece = next(&mut self.stdout) => piece,
                piece = next(&mut self.stderr) => piece,
            };
            self.keep(&piece);
        }
    }

    /// Reads what is left, for a moment only: what the command left running may hold the pipes open
    /// for ever.
    async fn rest(&mut self) {
        let end = Instant::now() + GRACE;
        while self.stdout.is_some() || self.stderr.is_some() {
            let piece = tokio::select! {
                piece = next(&mut self.stdout) => piece,
                piece = next(&mut self.stderr) => piece,
                () = sleep_until(end) => return,
            };
            self.keep(&piece);
        }
    }

    fn keep(&mut self, piece: &[u8]) {
        self.tail.extend_from_slice(piece);
        let surplus = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..surplus);
    }

    /// Adds the last line that holds something.
    fn explain(&self, error: Error) -> Error {
        let text = String::from_utf8_lossy(&self.tail);
        let last = text
            .lines()
            .rev()
            .map(|line| {
                // A terminal's control sequences have no place in a message.
                let plain: String = line.chars().filter(|c| !c.is_control()).take(400).collect();
                plain.trim().to_owned()
            })
            .find(|line| !line.is_empty());
        match last {
            Some(line) => error.because(line),
            None => error.because("it printed nothing"),
        }
    }
}

/// The next piece; an ended stream is put away, and one that is away never answers.
async fn next<R: AsyncRead + Unpin>(stream: &mut Option<R>) -> Vec<u8> {
    let Some(open) = stream else {
        return std::future::pending().await;
    };
    let mut piece = vec![0; 4096];
    let count = open.read(&mut piece).await.unwrap_or(0);
    piece.truncate(count);
    if count == 0 {
        *stream = None;
    }
    piece
}

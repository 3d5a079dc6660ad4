//! Commands of the configuration: hooks and health checks.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
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
pub async fn run_command(command: &str, environment: &[(String, String)], limit: Duration) -> Result<()> {
    let shown = shown(command);
    let passed_on = std::env::vars_os().filter(|(name, _)| {
        name.to_str().is_some_and(|name| matches!(name, "PATH" | "HOME" | "LANG" | "TZ") || name.starts_with("LC_"))
    });
    let cannot_start = |error: &dyn std::fmt::Display| {
        Error::failed(format!("`{shown}` could not be started by `sh -c`")).because(error)
    };
    // One pipe for both streams keeps the order in which the lines were printed.
    let (reader, stdout) = std::io::pipe().map_err(|error| cannot_start(&error))?;
    let stderr = stdout.try_clone().map_err(|error| cannot_start(&error))?;
    let pipe = Receiver::from_owned_fd(reader.into()).map_err(|error| cannot_start(&error))?;
    let child = Command::new("sh")
        .arg("-c")
        .arg(command)
        .env_clear()
        .envs(passed_on)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .process_group(0)
        .spawn()
        .map_err(|error| cannot_start(&error))?;
    let mut group = Group(child);
    let mut output = Output { pipe: Some(pipe), tail: Vec::new() };
    let Ok(ended) = timeout(limit, output.until_exit(&mut group.0)).await else {
        group.end().await;
        output.rest().await;
        return Err(output.explain(Error::failed(format!("`{shown}` did not end within {limit:?}, and was stopped"))));
    };
    let status = ended.map_err(|error| Error::failed(format!("`{shown}` could not be waited for")).because(error))?;
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
    let mut shown: String = first.chars().filter(|c| !c.is_control()).take(120).collect();
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

/// The last part of what a command prints.
struct Output {
    /// `None` after its end.
    pipe: Option<Receiver>,
    tail: Vec<u8>,
}

impl Output {
    async fn until_exit(&mut self, child: &mut Child) -> std::io::Result<ExitStatus> {
        loop {
            let piece = tokio::select! {
                status = child.wait() => return status,
                piece = self.next() => piece,
            };
            self.keep(&piece);
        }
    }

    /// Reads what is left, for a moment only: what the command left running may hold the pipe open
    /// for ever.
    async fn rest(&mut self) {
        let end = Instant::now() + GRACE;
        while self.pipe.is_some() {
            let piece = tokio::select! {
                piece = self.next() => piece,
                () = sleep_until(end) => return,
            };
            self.keep(&piece);
        }
    }

    /// The next piece; a pipe that has ended is put away, and then there is none for ever.
    async fn next(&mut self) -> Vec<u8> {
        let Some(pipe) = &mut self.pipe else {
            return std::future::pending().await;
        };
        let mut piece = vec![0; 4096];
        let count = pipe.read(&mut piece).await.unwrap_or(0);
        piece.truncate(count);
        if count == 0 {
            self.pipe = None;
        }
        piece
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

#[cfg(test)]
mod tests {
    use super::*;

    fn limit() -> Duration {
        Duration::from_secs(10)
    }

    #[tokio::test]
    async fn a_command_fails_with_its_last_line() {
        for (command, message, cause) in [
            ("echo first; echo last; echo; exit 7", "failed with exit status 7", "last"),
            ("echo out; echo err >&2; false", "failed with exit status 1", "err"),
            ("exit 1", "failed with exit status 1", "it printed nothing"),
            ("kill -9 $$", "was ended by signal 9", "it printed nothing"),
            ("no-such-program-here", "failed with exit status 127", "not found"),
            ("printf '\\033[31mred\\033[0m\\n'; exit 1", "exit status 1", "[31mred[0m"),
            ("yes | head -c 3000000; echo; echo end; exit 1", "exit status 1", "end"),
            ("read line; echo \"$line end\"; exit 1", "exit status 1", "end"),
        ] {
            let error = run_command(command, &[], limit()).await.unwrap_err();
            assert!(error.message().contains(message), "{command}: {error}");
            assert!(error.causes()[0].ends_with(cause), "{command}: {error}");
            assert!(!error.one_line().contains('\u{1b}'), "{command}");
        }
        run_command("true", &[], limit()).await.unwrap();
        run_command("exit 0\n", &[], limit()).await.unwrap();
    }

    #[tokio::test]
    async fn a_command_gets_a_small_environment() {
        let given = [("RIPCORD_RUN".to_owned(), "a b".to_owned())];
        run_command("test \"$RIPCORD_RUN\" = 'a b'", &given, limit()).await.unwrap();
        // Cargo sets these for tests; none of them may be passed on.
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        run_command("! env | grep -q '^CARGO'", &[], limit()).await.unwrap();
        run_command("test -n \"$PATH\"", &[], limit()).await.unwrap();
    }

    #[tokio::test]
    async fn at_the_limit_the_whole_group_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let alive = folder.path().join("alive");
        let command =
            format!("trap '' TERM; echo begun; (trap '' TERM; sleep 2; touch '{}') & wait; sleep 30", alive.display());
        let began = Instant::now();
        let error = run_command(&command, &[], Duration::from_millis(300)).await.unwrap_err();
        assert!(error.message().contains("did not end within 300ms"), "{error}");
        assert_eq!(error.causes(), ["begun"]);
        assert!(began.elapsed() < Duration::from_secs(4));
        sleep(Duration::from_millis(2200)).await;
        assert!(!alive.exists(), "a child outlived its group");
    }

    #[tokio::test]
    async fn a_command_whose_caller_goes_away_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let alive = folder.path().join("alive");
        let command = format!("sleep 0.5; touch '{}'", alive.display());
        let run = run_command(&command, &[], limit());
        assert!(tokio::time::timeout(Duration::from_millis(100), run).await.is_err());
        sleep(Duration::from_millis(1000)).await;
        assert!(!alive.exists());
    }

    #[tokio::test]
    async fn what_a_command_leaves_running_is_not_waited_for() {
        let began = Instant::now();
        run_command("sleep 5 &", &[], limit()).await.unwrap();
        let error = run_command("sleep 5 & echo no; exit 1", &[], limit()).await.unwrap_err();
        assert_eq!(error.causes(), ["no"]);
        assert!(began.elapsed() < Duration::from_secs(4));
    }
}

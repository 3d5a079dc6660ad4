//! `pg_dump`, as a child process whose output is read as it comes.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdout, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::{TEXT_SETTINGS, Target, Tools, quote, tools};
use crate::error::{Error, Result};

/// What to dump.
#[derive(Clone, Debug, Default)]
pub struct DumpOptions {
    /// Schemas that are left out, exact names. Ripcord's own is always left out. In a database that is not
    /// in UTF-8, only names in ASCII are matched: pg_dump reads them in the database's encoding.
    pub exclude_schemas: Vec<String>,
    /// Read this exported snapshot.
    pub snapshot: Option<String>,
    /// The encoding to write in: the database's own. Without it, a `client_encoding` that the database sets for
    /// everyone would be the dump's.
    pub encoding: Option<String>,
    /// The schema only (`--schema-only`).
    pub schema_only: bool,
    /// These tables' rows are left out, `(schema, table)`.
    pub exclude_data: Vec<(String, String)>,
    /// Nothing but the rows of these tables, `(schema, table)`; none: everything.
    pub only_data_of: Vec<(String, String)>,
    /// How long pg_dump waits for a lock on a table before it gives up.
    pub lock_wait: Duration,
}

/// A running `pg_dump -Fc -Z0`. Own process group; killed when dropped. Its environment is cleared but
/// for an allow-list; a password goes in its own environment (PGPASSWORD) alone, never in argv.
pub struct Dump {
    stdout: ChildStdout,
    stderr: Option<JoinHandle<Vec<u8>>>,
    killer: Killer,
    /// The last byte of its output has been read.
    ended: bool,
    /// How long the pipe may be left to fill.
    pause: Duration,
    /// The last read took all that there was.
    drained: bool,
}

/// Kills a child's process group.
#[derive(Clone)]
pub struct Killer {
    process: Arc<Process>,
}

struct Process {
    pid: Pid,
    state: Mutex<State>,
}

struct State {
    child: Child,
    /// The pid may belong to somebody else once the child has been waited for.
    status: Option<ExitStatus>,
    killed: bool,
}

/// No pg_dump writes more than this many bytes in a second, so a pipe that is left alone for its size
/// divided by this never fills, and pg_dump never waits for us.
const FASTEST_BYTES_A_SECOND: u64 = 1 << 30;

/// What is kept of a child's stderr: its end.
const KEPT_STDERR_BYTES: usize = 64 << 10;

/// Lines of stderr that an error shows.
const SHOWN_LINES: usize = 6;

/// On SIGTERM pg_dump cancels its query on the server before it ends; it gets this time to do so.
const GRACE: Duration = Duration::from_secs(2);

impl Dump {
    /// Starts it. `PGOPTIONS` fixes [`super::TEXT_SETTINGS`] and takes the read-only fence off nothing.
    pub fn begin(tools: &Tools, target: &Target, options: &DumpOptions) -> Result<Dump> {
        let mut command = tools::client(&tools.pg_dump, target, TEXT_SETTINGS);
        command.args(arguments(options)).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let failed = |cause: &dyn std::fmt::Display| {
            Error::failed(format!("`{}` could not be started", tools.pg_dump.display())).because(cause)
        };
        let mut child = command.spawn().map_err(|error| failed(&error))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let (Some(pid), Some(stdout), Some(stderr)) = (pid, child.stdout.take(), child.stderr.take()) else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(failed(&"it has no output"));
        };
        // Fewer switches between the two processes; a kernel's limit may forbid it, which costs only time.
        let _ = rustix::pipe::fcntl_setpipe_size(&stdout, 1 << 20);
        let room = rustix::pipe::fcntl_getpipe_size(&stdout).map_or(0, |bytes| bytes as u64);
        let pause = Duration::from_nanos(room * 1_000_000_000 / FASTEST_BYTES_A_SECOND);
        let state = Mutex::new(State { child, status: None, killed: false });
        let killer = Killer { process: Arc::new(Process { pid, state }) };
        Ok(Dump {
            stdout,
            stderr: Some(thread::spawn(move || read_end(stderr))),
            killer,
            ended: false,
            pause,
            drained: false,
        })
    }

    /// A handle that kills it from another thread, for time limits and signals.
    pub fn killer(&self) -> Killer {
        self.killer.clone()
    }

    /// The child's process id.
    pub fn pid(&self) -> u32 {
        self.killer.process.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// After its output ended: waits, and reads status and stderr. An error names the exit status or
    /// signal and pg_dump's last lines.
    pub fn finish(self) -> Result<()> {
        self.finish_with_warnings().map(|_| ())
    }

    /// [`finish`](Self::finish), and what a successful pg_dump said on stderr, line by line.
    pub fn finish_with_warnings(mut self) -> Result<Vec<String>> {
        if !self.ended {
            self.killer.end_now();
            return Err(Error::failed("pg_dump's output was not read to its end"));
        }
        let status = self.killer.process.wait()?;
        let said = self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let lines: Vec<String> = String::from_utf8_lossy(&said)
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect();
        if status.success() {
            return Ok(lines);
        }
        Err(failure(status, &lines, self.killer.process.lock().killed))
    }
}

fn failure(status: ExitStatus, lines: &[String], killed: bool) -> Error {
    let mut error = Error::failed(match (status.code(), status.signal()) {
        _ if killed => "pg_dump was stopped by ripcord".to_owned(),
        (Some(code), _) => format!("pg_dump failed with exit status {code}"),
        (None, Some(signal)) => format!("pg_dump was killed by signal {signal}"),
        (None, None) => "pg_dump failed".to_owned(),
    });
    for line in lines.iter().skip(lines.len().saturating_sub(SHOWN_LINES)) {
        error = error.because(line.strip_prefix("pg_dump: ").unwrap_or(line));
    }
    let said = |text: &str| lines.iter().any(|line| line.contains(text));
    if said("due to lock timeout") || said("due to statement timeout") {
        error.hint("another session holds a lock on that table: wait for it to end, or end it, and run again")
    } else if said("would be affected by row-level security policy") {
        error.hint("dump as a role that owns the tables or has BYPASSRLS")
    } else {
        error
    }
}

fn arguments(options: &DumpOptions) -> Vec<String> {
    // Formats are read from the stream by our own reader, which compresses better than pg_dump would.
    let mut arguments = vec!["--format=custom".to_owned(), "--compress=0".to_owned(), "--no-password".to_owned()];
    // 0 would mean to wait for ever.
    arguments.push(format!("--lock-wait-timeout={}", options.lock_wait.as_millis().max(1)));
    arguments.extend(options.encoding.as_ref().map(|encoding| format!("--encoding={encoding}")));
    // Quoted, a name in pg_dump's pattern language stands for itself: no wildcard, no folding to lower case.
    arguments.push(format!("--exclude-schema={}", quote::ident("ripcord")));
    for schema in &options.exclude_schemas {
        arguments.push(format!("--exclude-schema={}", quote::ident(schema)));
    }
    for (schema, table) in &options.exclude_data {
        arguments.push(format!("--exclude-table-data={}.{}", quote::ident(schema), quote::ident(table)));
    }
    if !options.only_data_of.is_empty() {
        // A table that is not found would otherwise be left out without a word.
        arguments.extend(["--data-only", "--strict-names"].map(str::to_owned));
    }
    for (schema, table) in &options.only_data_of {
        arguments.push(format!("--table={}.{}", quote::ident(schema), quote::ident(table)));
    }
    if let Some(snapshot) = &options.snapshot {
        arguments.push(format!("--snapshot={snapshot}"));
    }
    if options.schema_only {
        arguments.push("--schema-only".to_owned());
    }
    arguments
}

/// Reads to the end and keeps the last bytes, so that a child which complains a million times neither blocks
/// nor fills our memory.
pub(super) fn read_end(mut stderr: ChildStderr) -> Vec<u8> {
    let mut kept = VecDeque::new();
    let mut buffer = [0; 4096];
    loop {
        match stderr.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                kept.extend(buffer.iter().take(count));
                let excess = kept.len().saturating_sub(KEPT_STDERR_BYTES);
                kept.drain(..excess);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    kept.into()
}

impl Read for Dump {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // pg_dump writes 4 KiB at a time, and a reader that waits for each piece makes the two processes
        // take turns a quarter of a million times per GiB: better to come back when much is there.
        if self.drained {
            thread::sleep(self.pause);
        }
        let count = self.stdout.read(buffer)?;
        self.drained = count < buffer.len();
        self.ended |= count == 0 && !buffer.is_empty();
        Ok(count)
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        self.killer.end_now();
    }
}

impl Killer {
    /// Kills it; does nothing when it has ended.
    pub fn kill(&self) {
        if !self.process.signal(Signal::TERM) {
            return;
        }
        let process = Arc::clone(&self.process);
        thread::spawn(move || {
            thread::sleep(GRACE);
            process.signal(Signal::KILL);
        });
    }

    /// Kills it and waits until it is gone.
    fn end_now(&self) {
        if !self.process.signal(Signal::TERM) {
            return;
        }
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if self.process.has_ended() {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.process.signal(Signal::KILL);
        let _ = self.process.wait();
    }
}

impl Process {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a signal to the group; `false` when it has been waited for.
    fn signal(&self, signal: Signal) -> bool {
        let mut state = self.lock();
        if state.status.is_some() {
            return false;
        }
        state.killed |= !matches!(state.child_has_ended(self.pid), Some(true));
        let _ = kill_process_group(self.pid, signal);
        true
    }

    fn has_ended(&self) -> bool {
        let mut state = self.lock();
        state.status.is_some() || state.child_has_ended(self.pid) == Some(true)
    }

    /// Waits without holding the lock, and only then, with the lock, lets the pid go: so that a signal never
    /// reaches a stranger that was given the same pid.
    fn wait(&self) -> Result<ExitStatus> {
        if let Some(status) = self.lock().status {
            return Ok(status);
        }
        while let Err(rustix::io::Errno::INTR) =
            waitid(WaitId::Pid(self.pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        {}
        let mut state = self.lock();
        let status = state.child.wait().map_err(|error| Error::failed("pg_dump's end is not known").because(error))?;
        state.status = Some(status);
        Ok(status)
    }
}

impl State {
    /// Whether it has ended, its status being left for whoever waits.
    fn child_has_ended(&mut self, pid: Pid) -> Option<bool> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        waitid(WaitId::Pid(pid), options).ok().map(|ended| ended.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_themselves() {
        let options = DumpOptions {
            exclude_schemas: vec!["A*\"b".to_owned()],
            exclude_data: vec![("s.t".to_owned(), "x y".to_owned())],
            snapshot: Some("00000003-00000002-1".to_owned()),
            schema_only: true,
            only_data_of: Vec::new(),
            encoding: Some("LATIN1".to_owned()),
            lock_wait: Duration::from_millis(1500),
        };
        assert_eq!(
            arguments(&options),
            [
                "--format=custom",
                "--compress=0",
                "--no-password",
                "--lock-wait-timeout=1500",
                "--encoding=LATIN1",
                "--exclude-schema=\"ripcord\"",
                "--exclude-schema=\"A*\"\"b\"",
                "--exclude-table-data=\"s.t\".\"x y\"",
                "--snapshot=00000003-00000002-1",
                "--schema-only",
            ]
        );
        let only = DumpOptions { only_data_of: vec![("A.b".to_owned(), "*\"".to_owned())], ..DumpOptions::default() };
        let last = arguments(&only).into_iter().rev().take(3).collect::<Vec<_>>();
        assert_eq!(last, ["--table=\"A.b\".\"*\"\"\"", "--strict-names", "--data-only"]);
        assert!(arguments(&DumpOptions::default()).contains(&"--lock-wait-timeout=1".to_owned()));
    }
}

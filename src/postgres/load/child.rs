//! `pg_restore` as a child process: what it reads, what it says, how it ends.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::error::{Error, Kind, Result};
use crate::postgres::dump::read_end;

/// Read and written at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Lines of stderr that an error shows.
const SHOWN_LINES: usize = 8;

/// On SIGTERM pg_restore cancels its statements on the server before it ends; it gets this time to do so.
const GRACE: Duration = Duration::from_secs(2);

/// Where a file of memory is found by the child whose standard input it is. Opened by this path it begins
/// at its start, as often as it is opened, which is what `pg_restore -j` needs.
pub(super) const STDIN_PATH: &str = "/proc/self/fd/0";

/// What the child reads on its standard input.
pub(super) enum Input {
    /// A file that exists in memory only; to be named as [`STDIN_PATH`].
    Memory(Memory),
    /// A stream that is handed through as it comes; after each piece, its bytes are told.
    Stream(Box<dyn Read + Send>, Box<dyn Fn(u64) + Send>),
}

/// Bytes in a file that has no name and is never on a disk.
#[derive(Clone)]
pub(super) struct Memory(Arc<File>);

impl Memory {
    pub(super) fn new(bytes: &[u8]) -> Result<Memory> {
        let made = || -> io::Result<File> {
            let mut file = File::from(memfd_create("ripcord", MemfdFlags::CLOEXEC)?);
            file.write_all(bytes)?;
            Ok(file)
        };
        let file = made().map_err(|error| Error::failed("no memory for the table of contents").because(error))?;
        Ok(Memory(Arc::new(file)))
    }

    /// As the child's standard input.
    fn stdin(&self) -> io::Result<Stdio> {
        Ok(Stdio::from(self.0.try_clone()?))
    }
}

/// Held from making a descriptor inheritable until the child has it.
static INHERITING: Mutex<()> = Mutex::new(());

/// A running child, killed with its group when this is dropped before it ended.
struct Guard(Arc<Process>);

struct Process {
    pid: Pid,
    /// `None` once it was waited for: the pid may be somebody else's from then on.
    child: Mutex<Option<Child>>,
}

impl Process {
    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signals the group; `false` when it has been waited for.
    fn signal(&self, signal: Signal) -> bool {
        let child = self.lock();
        if child.is_some() {
            let _ = kill_process_group(self.pid, signal);
        }
        child.is_some()
    }

    /// Waits without the lock, and takes the status with it, so that no signal reaches a stranger.
    fn wait(&self) -> io::Result<ExitStatus> {
        while let Err(rustix::io::Errno::INTR) =
            waitid(WaitId::Pid(self.pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        {}
        match self.lock().take() {
            Some(mut child) => child.wait(),
            None => Err(io::Error::other("somebody else waited for it")),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.0.signal(Signal::TERM) {
            return;
        }
        let process = Arc::clone(&self.0);
        thread::spawn(move || {
            thread::sleep(GRACE);
            process.signal(Signal::KILL);
        });
    }
}

/// What a child that succeeded left.
pub(super) struct Said {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<String>,
}

/// Runs it to its end. `list`, when there is one, is given to it as the file of `--use-list`. Dropped, it
/// is killed. `what` says what it is for: "the schema could not be loaded".
pub(super) async fn run(command: Command, input: Input, list: Option<&Memory>, failed: &'static str) -> Result<Said> {
    let keep = |mut stdout: ChildStdout| {
        let mut all = Vec::new();
        let _ = stdout.read_to_end(&mut all);
        Ok(all)
    };
    run_with(command, input, list, failed, keep).await
}

/// [`run`], with its output taken by `take` on a thread of its own. When that gives up, the child meets a closed pipe.
pub(super) async fn run_with(
    mut command: Command,
    input: Input,
    list: Option<&Memory>,
    failed: &'static str,
    take: impl FnOnce(ChildStdout) -> Result<Vec<u8>> + Send + 'static,
) -> Result<Said> {
    let start = |error: &dyn std::fmt::Display| Error::failed("pg_restore could not be started").because(error);
    let stream = match input {
        Input::Memory(memory) => {
            command.stdin(memory.stdin().map_err(|error| start(&error))?);
            None
        }
        Input::Stream(reader, told) => {
            command.stdin(Stdio::piped());
            Some((reader, told))
        }
    };
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = spawn(&mut command, list).map_err(|error| start(&error))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(start(&"it has no process id"));
    };
    let process = Arc::new(Process { pid, child: Mutex::new(Some(child)) });
    let _guard = Guard(Arc::clone(&process));

    let out = tokio::task::spawn_blocking(move || stdout.map_or_else(|| Ok(Vec::new()), take));
    let err = tokio::task::spawn_blocking(move || stderr.map(read_end).unwrap_or_default());
    let feeder = stream.zip(stdin).map(|((reader, told), stdin)| {
        let process = Arc::clone(&process);
        tokio::task::spawn_blocking(move || feed(reader, stdin, &*told, &process))
    });
    let waiter = Arc::clone(&process);
    let status = tokio::task::spawn_blocking(move || waiter.wait()).await.map_err(|error| start(&error))?;
    // The input's own failure is the cause, whatever pg_restore made of its end.
    if let Some(feeder) = feeder {
        feeder.await.map_err(|error| Error::failed(failed).because(error))?.map_err(|error| {
            // What a reader gives out as this is no fault of a disk or a network: the backup is another.
            let kind = if error.kind() == io::ErrorKind::InvalidData { Kind::Verification } else { Kind::Failed };
            Error::new(kind, failed).because("the backup could not be read").because(error)
        })?;
    }
    let stdout = out.await.map_err(|error| start(&error))??;
    let stderr = said(&err.await.map_err(|error| start(&error))?);
    match status {
        Ok(status) if status.success() => Ok(Said { stdout, stderr }),
        Ok(status) => Err(failure(status, &stderr).context(failed)),
        Err(error) => Err(Error::failed("pg_restore's end is not known").because(error).context(failed)),
    }
}

fn spawn(command: &mut Command, list: Option<&Memory>) -> io::Result<Child> {
    let Some(list) = list else { return command.spawn() };
    let _alone = INHERITING.lock().unwrap_or_else(PoisonError::into_inner);
    let inherited = list.0.as_fd();
    command.arg(format!("--use-list=/proc/self/fd/{}", inherited.as_raw_fd()));
    fcntl_setfd(inherited, FdFlags::empty())?;
    let child = command.spawn();
    fcntl_setfd(inherited, FdFlags::CLOEXEC)?;
    child
}

/// Hands the stream through. When it cannot be read, the child is killed before its input ends: it must
/// not take a part for the whole.
fn feed(
    mut reader: Box<dyn Read + Send>,
    mut stdin: std::process::ChildStdin,
    told: &dyn Fn(u64),
    process: &Process,
) -> io::Result<()> {
    // Fewer switches between the processes; a kernel's limit may forbid it, which costs only time.
    let _ = rustix::pipe::fcntl_setpipe_size(&stdin, CHUNK_BYTES);
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let piece = match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => buffer.get(..count).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                process.signal(Signal::KILL);
                return Err(error);
            }
        };
        match stdin.write_all(piece) {
            Ok(()) => told(piece.len() as u64),
            // It has read what it needs, or it failed: its status tells.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => {
                process.signal(Signal::KILL);
                return Err(error);
            }
        }
    }
}

/// The lines that may be shown. The statement that failed is none of them, nor is the row: they may hold
/// the password of a subscription or of a foreign server, and what the tables hold.
fn said(stderr: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(stderr)
        .lines()
        .filter_map(|line| {
            let line = line.trim_end();
            if let Some(line) = line.strip_prefix("pg_restore: ") {
                return Some(line.to_owned());
            }
            let kept =
                line.starts_with("HINT:") || (line.starts_with("DETAIL:") && !line.contains("ailing row contains"));
            kept.then(|| line.to_owned())
        })
        .collect()
}

fn failure(status: ExitStatus, lines: &[String]) -> Error {
    let mut error = Error::failed(match (status.code(), status.signal()) {
        (Some(code), _) => format!("pg_restore failed with exit status {code}"),
        (None, Some(signal)) => format!("pg_restore was killed by signal {signal}"),
        (None, None) => "pg_restore failed".to_owned(),
    });
    for line in lines.iter().skip(lines.len().saturating_sub(SHOWN_LINES)) {
        error = error.because(line);
    }
    let said = |text: &str| lines.iter().any(|line| line.contains(text));
    if said("must be able to SET ROLE") || said("must be member of role") {
        error.hint("GRANT the owning roles to the role that ripcord restores as")
    } else if said("extension control file") || (said("extension ") && said("is not available")) {
        error.hint("install the extension's package on the server that is restored to")
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_and_rows_are_not_repeated() {
        let stderr = b"pg_restore: while PROCESSING TOC:\n\
            pg_restore: error: could not execute query: ERROR:  syntax error\n\
            LINE 1: CREATE SUBSCRIPTION s CONNECTION 'password=hush'\n\
            DETAIL:  Failing row contains (hush).\n\
            HINT:  Do not.\n\
            Command was: CREATE SUBSCRIPTION s\n    CONNECTION 'password=hush';\n";
        let lines = said(stderr);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(!lines.concat().contains("hush"));
    }

    fn sh(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn memory_can_be_opened_more_than_once() {
        let memory = Memory::new(b"abc").unwrap();
        for _ in 0..2 {
            let input = Input::Memory(memory.clone());
            let said = run(sh("cat /proc/self/fd/0 /proc/self/fd/0"), input, None, "x").await.unwrap();
            assert_eq!(said.stdout, b"abcabc");
        }
    }

    #[tokio::test]
    async fn a_stream_that_breaks_kills_the_child_before_its_input_ends() {
        struct Breaks(bool);
        impl Read for Breaks {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if std::mem::replace(&mut self.0, true) {
                    return Err(io::Error::other("frame 3 is damaged"));
                }
                buffer[0] = b'x';
                Ok(1)
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("ended");
        let input = Input::Stream(Box::new(Breaks(false)), Box::new(|_| {}));
        let script = format!("cat >/dev/null; touch {}", mark.display());
        let error = run(sh(&script), input, None, "the load failed").await.err().unwrap();
        assert!(error.one_line().contains("frame 3 is damaged"), "{error}");
        assert!(!mark.exists(), "the child saw a regular end of its input");
    }

    #[tokio::test]
    async fn dropped_it_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("alive");
        let script = format!("sleep 1; touch {}", mark.display());
        let running = run(sh(&script), Input::Memory(Memory::new(b"").unwrap()), None, "x");
        assert!(tokio::time::timeout(Duration::from_millis(200), running).await.is_err());
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(!mark.exists());
    }
}

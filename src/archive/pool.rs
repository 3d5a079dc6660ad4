//! Worker threads whose results are taken in the order of their jobs.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

/// Threads that share one bounded queue of jobs. Dropped, it waits for the jobs that were begun.
pub(super) struct Pool<J, R> {
    queue: Option<SyncSender<(J, SyncSender<R>)>>,
    workers: Vec<JoinHandle<()>>,
}

/// Every worker is gone, which a panic alone can do.
#[derive(Debug)]
pub(super) struct Stopped;

impl<J: Send + 'static, R: Send + 'static> Pool<J, R> {
    /// Starts `threads` threads (one at least), each with the worker that `make` gives it.
    pub(super) fn start<F: FnMut(J) -> R + Send + 'static>(
        threads: usize,
        make: impl Fn() -> io::Result<F>,
    ) -> io::Result<Self> {
        let threads = threads.max(1);
        let (queue, jobs) = sync_channel::<(J, SyncSender<R>)>(threads);
        let jobs = Arc::new(Mutex::new(jobs));
        let mut workers = Vec::with_capacity(threads);
        for number in 0..threads {
            let (jobs, mut work) = (Arc::clone(&jobs), make()?);
            let run = move || {
                loop {
                    let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((job, reply)) = next else { break };
                    // Whoever waits no more has met an error already.
                    let _ = reply.send(work(job));
                }
            };
            workers.push(Builder::new().name(format!("frames-{number}")).spawn(run)?);
        }
        Ok(Pool { queue: Some(queue), workers })
    }

    /// Hands in a job, waiting while the queue is full. The result comes out of the receiver.
    pub(super) fn submit(&self, job: J) -> Result<Receiver<R>, Stopped> {
        let (reply, result) = sync_channel(1);
        let queue = self.queue.as_ref().ok_or(Stopped)?;
        queue.send((job, reply)).map_err(|_| Stopped)?;
        Ok(result)
    }
}

impl<J, R> Drop for Pool<J, R> {
    fn drop(&mut self) {
        self.queue = None;
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

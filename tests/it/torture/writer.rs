//! An application that writes all the while, and notes outside the database what was acknowledged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Connections that write at the same time, and the pause of each between two transactions.
const CONNECTIONS: u64 = 4;
const PAUSE: Duration = Duration::from_millis(9);

/// What the application was told: inserted rows, deleted rows, and how long it could write.
#[derive(Default)]
pub struct Noted {
    /// `n` of `events` whose COMMIT was acknowledged.
    pub inserted: Vec<i64>,
    /// `id` of `queue` whose DELETE was acknowledged.
    pub deleted: Vec<i64>,
    /// Between two acknowledgements that are no further apart than a tenth of a second.
    pub writing: Duration,
    last: Option<Instant>,
}

impl Noted {
    fn acknowledge(&mut self) {
        let now = Instant::now();
        if let Some(last) = self.last
            && now - last < Duration::from_millis(100)
        {
            self.writing += now - last;
        }
        self.last = Some(now);
    }

    /// Acknowledged transactions.
    pub fn count(&self) -> usize {
        self.inserted.len() + self.deleted.len()
    }
}

/// Writes until it is finished or dropped.
pub struct Writer {
    stop: Arc<AtomicBool>,
    noted: Arc<Mutex<Noted>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// `passing`: it asks for READ WRITE in each transaction, and so passes a fence.
    pub fn start(url: &str, passing: bool) -> Writer {
        let (stop, noted) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Noted::default())));
        let url = url.to_owned();
        let thread = std::thread::spawn({
            let (stop, noted) = (stop.clone(), noted.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let each = (0..CONNECTIONS).map(|number| write(&url, number, passing, &stop, &noted));
                    futures_util::future::join_all(each).await;
                });
            }
        });
        Writer { stop, noted, thread: Some(thread) }
    }

    /// Acknowledged so far.
    pub fn count(&self) -> usize {
        self.noted.lock().unwrap().count()
    }

    /// Ends it.
    pub fn finish(mut self) -> Noted {
        self.end();
        std::mem::take(&mut self.noted.lock().unwrap())
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}

async fn write(url: &str, number: u64, passing: bool, stop: &AtomicBool, noted: &Mutex<Noted>) {
    let begin = if passing { "BEGIN READ WRITE" } else { "BEGIN" };
    let mut n = i64::try_from(number).unwrap();
    let mut turn = 0;
    while !stop.load(Ordering::SeqCst) {
        let connecting = tokio_postgres::connect(url, tokio_postgres::NoTls);
        let Ok(Ok((client, connection))) = tokio::time::timeout(Duration::from_secs(2), connecting).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let connection = tokio::spawn(connection);
        let _ = client.batch_execute("SET lock_timeout = '3s'").await;
        while !stop.load(Ordering::SeqCst) {
            tokio::time::sleep(PAUSE).await;
            turn += 1;
            n += i64::try_from(CONNECTIONS).unwrap();
            // Every seventh transaction takes something off the queue, the others put an event in and count it.
            let removes = turn % 7 == 0 && n < super::scene::QUEUED;
            let body = if removes {
                format!("DELETE FROM public.queue WHERE id = {n}")
            } else {
                let account = n % super::scene::ACCOUNTS + 1;
                format!(
                    "INSERT INTO public.events (n) VALUES ({n}); \
                     UPDATE public.accounts SET balance = balance + 1 WHERE id = {account}"
                )
            };
            let sql = format!("{begin}; {body}; COMMIT");
            let answered = tokio::time::timeout(Duration::from_secs(10), client.batch_execute(&sql)).await;
            let mut noted = noted.lock().unwrap();
            match answered {
                Ok(Ok(())) if removes => noted.deleted.push(n),
                Ok(Ok(())) => noted.inserted.push(n),
                _ => break,
            }
            noted.acknowledge();
        }
        drop(client);
        connection.abort();
    }
}

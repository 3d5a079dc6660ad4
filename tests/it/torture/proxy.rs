//! A TCP proxy between ripcord and the server, whose connections can be cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Forwards to the server while it is open.
pub struct Proxy {
    port: u16,
    stop: Arc<AtomicBool>,
    open: Arc<AtomicBool>,
    cuts: watch::Sender<u64>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// To a port of this host.
    pub fn start(to: u16) -> Proxy {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, open) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
        let (cuts, cut) = watch::channel(0);
        let thread = std::thread::spawn({
            let (stop, open) = (stop.clone(), open.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(serve(listener, to, &stop, &open, cut));
            }
        });
        Proxy { port, stop, open, cuts, thread: Some(thread) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends every connection at once, and lets no new one through until [`open`](Self::open).
    pub fn cut(&self) {
        self.open.store(false, Ordering::SeqCst);
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    pub fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.cut();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(
    listener: std::net::TcpListener,
    to: u16,
    stop: &AtomicBool,
    open: &AtomicBool,
    cut: watch::Receiver<u64>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    while !stop.load(Ordering::SeqCst) {
        let waiting = std::time::Duration::from_millis(100);
        let Ok(Ok((mut from, _))) = tokio::time::timeout(waiting, listener.accept()).await else { continue };
        if !open.load(Ordering::SeqCst) {
            continue;
        }
        let mut cut = cut.clone();
        cut.borrow_and_update();
        tokio::spawn(async move {
            let Ok(mut server) = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], to))).await else { return };
            tokio::select! {
                _ = copy_bidirectional(&mut from, &mut server) => {}
                _ = cut.changed() => {}
            }
        });
    }
}

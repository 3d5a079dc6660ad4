use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::*;
use crate::progress::{Event, Observer};

/// A server that answers each request by its head; `answer` gives the whole response.
async fn serve<A>(answer: A) -> String
where
    A: Fn(String) -> Vec<u8> + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = Arc::clone(&answer);
            tokio::spawn(async move { respond(stream, &*answer).await });
        }
    });
    format!("http://{address}")
}

async fn respond(mut stream: TcpStream, answer: &(dyn Fn(String) -> Vec<u8> + Send + Sync)) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let _ = stream.write_all(&answer(String::from_utf8(head).unwrap())).await;
}

fn response(status: u16, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n{body}", body.len())
        .into_bytes()
}

fn check(probe: HealthProbe) -> HealthCheck {
    HealthCheck {
        probe,
        successes: 3,
        interval: Duration::from_millis(10),
        deadline: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
    }
}

/// A check of a URL that a test adds its expectations to.
struct Expect {
    url: String,
    status: Vec<u16>,
    json: BTreeMap<String, String>,
    text: Option<String>,
    headers: Vec<(String, SecretString)>,
}

fn get(url: impl Into<String>) -> Expect {
    Expect { url: url.into(), status: Vec::new(), json: BTreeMap::new(), text: None, headers: Vec::new() }
}

impl Expect {
    fn status(mut self, status: u16) -> Self {
        self.status.push(status);
        self
    }

    fn json(mut self, pointer: &str, value: &str) -> Self {
        self.json.insert(pointer.to_owned(), value.to_owned());
        self
    }

    fn text(mut self, text: &str) -> Self {
        self.text = Some(text.to_owned());
        self
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    fn check(self) -> HealthCheck {
        check(HealthProbe::Url {
            url: self.url,
            expect_status: self.status,
            expect_json: self.json,
            expect_text: self.text,
            headers: self.headers,
        })
    }

    async fn seen(self) -> (bool, String) {
        let answer = probe(&self.check()).await;
        (answer.healthy, answer.detail)
    }
}

fn bad(detail: &str) -> (bool, String) {
    (false, detail.to_owned())
}

fn good(detail: &str) -> (bool, String) {
    (true, detail.to_owned())
}

#[tokio::test]
async fn statuses_are_compared() {
    let url = serve(|head| {
        let status = head.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        response(status, "", "")
    })
    .await;
    let at = |status: &str| get(format!("{url}/{status}"));
    assert_eq!(at("200").seen().await, good("200"));
    assert_eq!(at("204").seen().await, good("204"));
    assert_eq!(at("503").seen().await, bad("503, expected 2xx"));
    assert_eq!(at("204").status(200).seen().await, bad("204, expected 200"));
    assert_eq!(at("404").status(404).seen().await, good("404"));
    let both = at("500").status(200).status(204);
    assert_eq!(both.seen().await, bad("500, expected 200 or 204"));
}

#[tokio::test]
async fn values_in_json_are_compared_as_text() {
    let body = r#"{"status":"ok","version":42,"up":true,"none":null,"db":{"a/b":[{"state":"ready"}]}}"#;
    let url = serve(|_| response(200, "", body)).await;
    for (pointer, value, expected) in [
        ("/status", "ok", Ok(())),
        ("/version", "42", Ok(())),
        ("/up", "true", Ok(())),
        ("/none", "null", Ok(())),
        ("/db/a~1b/0/state", "ready", Ok(())),
        ("/db/a~1b/0", r#"{"state":"ready"}"#, Ok(())),
        ("/status", "OK", Err("`/status` is `ok`, expected `OK`")),
        ("/version", "43", Err("`/version` is `42`, expected `43`")),
        ("/missing", "x", Err("`/missing` is missing, expected `x`")),
        ("status", "ok", Err("`status` is missing, expected `ok`")),
    ] {
        let wanted = match expected {
            Ok(()) => good("200"),
            Err(detail) => bad(detail),
        };
        assert_eq!(get(&url).json(pointer, value).seen().await, wanted, "{pointer}");
    }
    let url = serve(|_| response(200, "", "<html>")).await;
    assert_eq!(get(&url).json("/a", "b").seen().await, bad("the answer is not JSON"));
}

#[tokio::test]
async fn text_in_the_body_is_looked_for() {
    let url = serve(|_| response(200, "", "build 7 is running")).await;
    assert_eq!(get(&url).text("build 7").seen().await, good("200"));
    let detail = "the answer does not contain `build 8`";
    assert_eq!(get(&url).text("build 8").seen().await, bad(detail));
}

#[tokio::test]
async fn a_large_body_is_not_read_to_its_end() {
    let url = serve(|_| response(200, "", &"x".repeat(2 << 20))).await;
    let detail = "the answer is larger than 1MiB";
    assert_eq!(get(&url).text("y").seen().await, bad(detail));
    // Nobody asks for the body.
    assert_eq!(get(&url).seen().await, good("200"));
    // A value is shown in part, and without control characters.
    let url = serve(|_| response(200, "", &format!("{{\"a\":\"\\u001b[31m{}\"}}", "x".repeat(500)))).await;
    let (_, detail) = get(&url).json("/a", "ok").seen().await;
    assert!(detail.len() < 200 && !detail.contains('\u{1b}'), "{detail}");
}

#[tokio::test]
async fn redirects_stay_on_the_host_and_end() {
    let other = serve(|_| response(200, "", "")).await;
    let port = other.rsplit(':').next().unwrap().to_owned();
    let url = serve(move |head| {
        let path = head.split(' ').nth(1).unwrap();
        match path {
            "/0" => response(200, "", ""),
            "/away" => response(302, &format!("location: http://localhost:{port}/\r\n"), ""),
            path => {
                let left: u32 = path[1..].parse().unwrap();
                response(302, &format!("location: /{}\r\n", left - 1), "")
            }
        }
    })
    .await;
    assert_eq!(get(format!("{url}/3")).seen().await, good("200"));
    assert_eq!(get(format!("{url}/4")).seen().await, bad("more than 3 redirects"));
    let detail = "redirected to another host, `localhost`, which is not followed";
    assert_eq!(get(format!("{url}/away")).seen().await, bad(detail));
    assert_eq!(get(format!("{url}/1")).status(302).seen().await, good("302"));
}

#[tokio::test]
async fn headers_are_sent_and_nothing_secret_is_shown() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    let url = serve(move |head| {
        seen.lock().unwrap().push(head);
        response(503, "", "")
    })
    .await;
    let url = url.replace("http://", "http://admin:hunter2@") + "/health?token=hunter2#hunter2";
    let check = get(&url).header("X-Api-Key", "hunter2").check();
    let answer = probe(&check).await;
    let head = heads.lock().unwrap().pop().unwrap();
    assert!(head.contains("x-api-key: hunter2\r\n"), "{head}");
    assert!(head.contains("authorization: Basic "), "{head}");
    assert!(head.starts_with("GET /health?token=hunter2 "), "{head}");
    assert!(answer.subject.ends_with("/health"), "{answer:?}");
    assert!(!format!("{answer:?}").contains("hunter2"), "{answer:?}");
    for (name, value) in [("X-Key", "hunter2\n"), ("X Key", "hunter2")] {
        let (healthy, detail) = get(&url).header(name, value).seen().await;
        assert!(!healthy && detail.contains(name), "{detail}");
        assert!(!detail.contains("hunter2"), "{detail}");
    }
    let refused = "http://admin:hunter2@127.0.0.1:1/?token=hunter2";
    assert_eq!(get(refused).seen().await, bad("connection refused"));
    for invalid in ["hunter2", "http://", "ftp://hunter2", "http://h:hunter2@/"] {
        let answer = probe(&get(invalid).check()).await;
        assert!(!answer.healthy);
        assert!(answer.detail.contains("URL is invalid"), "{answer:?}");
        assert!(!format!("{answer:?}").contains("hunter2"), "{answer:?}");
    }
}

#[tokio::test]
async fn tls_works_without_a_default_provider() {
    // The peer is no TLS server: what matters is that the handshake is tried and told.
    let url = serve(|_| response(200, "", "")).await;
    let (healthy, detail) = get(url.replace("http://", "https://")).seen_soon().await;
    assert!(!healthy && !detail.is_empty(), "{detail}");
}

impl Expect {
    async fn seen_soon(self) -> (bool, String) {
        let mut check = self.check();
        check.timeout = Duration::from_millis(300);
        let answer = probe(&check).await;
        (answer.healthy, answer.detail)
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    assert_eq!(get(url).seen_soon().await, bad("no answer within 300ms"));
    // Also when it hangs after the head.
    let url = serve(|_| b"HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\nhalf".to_vec()).await;
    let (healthy, _) = get(url).text("x").seen_soon().await;
    assert!(!healthy);
}

#[tokio::test]
async fn commands_and_sql_are_answered() {
    let answer = probe(&check(HealthProbe::Command("true".to_owned()))).await;
    assert!(answer.healthy);
    assert_eq!((answer.subject.as_str(), answer.detail.as_str()), ("true", "exit status 0"));
    let answer = probe(&check(HealthProbe::Command("echo down >&2; exit 3".to_owned()))).await;
    assert!(!answer.healthy);
    assert!(answer.detail.contains("exit status 3: down"), "{answer:?}");
    let answer = probe(&check(HealthProbe::Sql("select 1".to_owned()))).await;
    assert!(!answer.healthy);
    assert_eq!(answer.subject, "select 1");
}

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Observer for Notes {
    fn observe(&self, event: &Event) {
        if let Event::Note { message } = event {
            self.0.lock().unwrap().push(message.clone());
        }
    }
}

/// Lets `wait_green` see these answers (`+` good, `-` bad, `~` bad in another way), the last of them
/// again and again; returns its answer, the number of probes and the notes.
async fn wait(check: &HealthCheck, answers: &str) -> (Answer, usize, Vec<String>) {
    let notes = Arc::new(Notes::default());
    let progress = Progress::new(Arc::clone(&notes) as Arc<dyn Observer>);
    let mut asked = 0;
    let answer = wait_green(check, &progress, async |_: &HealthCheck| {
        let mark = answers.chars().nth(asked.min(answers.len() - 1)).unwrap();
        asked += 1;
        Answer { subject: "app".to_owned(), healthy: mark == '+', detail: mark.to_string(), duration_ms: asked as u64 }
    })
    .await;
    let notes = notes.0.lock().unwrap().clone();
    (answer, asked, notes)
}

#[tokio::test]
async fn green_is_so_many_in_a_row() {
    let check = get("http://app").check();
    for (answers, asked) in [("+++", 3), ("-+++", 4), ("++-+++", 6), ("+-+-+-+++", 9)] {
        let (answer, count, _) = wait(&check, answers).await;
        assert!(answer.healthy, "{answers}");
        assert_eq!(count, asked, "{answers}");
    }
    let once = HealthCheck { successes: 0, deadline: Duration::ZERO, ..check };
    let (answer, count, _) = wait(&once, "+").await;
    assert!(answer.healthy);
    assert_eq!(count, 1);
}

#[tokio::test]
async fn only_changes_are_told() {
    let check = get("http://app").check();
    let (_, _, notes) = wait(&check, "---~~--+++").await;
    let expected = ["-", "~", "-", "+"].map(|detail| format!("health: `app`: {detail}"));
    assert_eq!(notes, expected);
}

#[tokio::test]
async fn at_the_deadline_it_is_not_green() {
    let check = HealthCheck {
        deadline: Duration::from_millis(100),
        interval: Duration::from_millis(20),
        ..get("http://app").check()
    };
    let (answer, count, _) = wait(&check, "-").await;
    assert!(!answer.healthy);
    assert!((2..=7).contains(&count), "{count}");
    // Good at last, but too few in a row: never to be taken for green.
    let check = HealthCheck { successes: 1000, ..check };
    let (answer, count, _) = wait(&check, "+").await;
    assert!(!answer.healthy);
    let expected = format!("+, but only {count} of 1000 good answers in a row before the deadline");
    assert_eq!(answer.detail, expected);
    // A pause longer than what is left: one more probe at the deadline.
    let check = HealthCheck { interval: Duration::from_secs(3600), successes: 2, ..check };
    let (answer, count, _) = wait(&check, "+").await;
    assert!(answer.healthy);
    assert_eq!(count, 2);
    let endless = HealthCheck { deadline: Duration::MAX, interval: Duration::ZERO, ..check };
    assert!(wait(&endless, "-++").await.0.healthy);
}

#[tokio::test]
async fn a_probe_that_never_ends_is_left() {
    let check = HealthCheck {
        deadline: Duration::from_millis(50),
        timeout: Duration::from_millis(50),
        ..get("http://app/x?secret").check()
    };
    let answer = wait_green(&check, &Progress::silent(), async |_: &HealthCheck| {
        sleep(Duration::from_secs(3600)).await;
        unreachable!()
    })
    .await;
    assert!(!answer.healthy);
    assert_eq!(answer.detail, "no answer before the deadline");
    assert_eq!(answer.subject, "http://app/x");
}

#[tokio::test]
async fn an_application_that_comes_up_turns_green() {
    let up = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicUsize::new(0));
    let (is_up, count) = (Arc::clone(&up), Arc::clone(&asked));
    let url = serve(move |_| {
        if count.fetch_add(1, Ordering::SeqCst) == 2 {
            is_up.store(true, Ordering::SeqCst);
        }
        response(if is_up.load(Ordering::SeqCst) { 200 } else { 503 }, "", "")
    })
    .await;
    let answer = wait_green(&get(url).check(), &Progress::silent(), probe).await;
    assert!(answer.healthy, "{answer:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 5);
}

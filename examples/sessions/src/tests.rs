//! The service as a client sees it. Its time passes when the test says so.

use crate::client::{Client, Failure};
use crate::drive::drive;
use crate::id::SessionId;
use crate::service::Service;
use crate::store::{Accounts, Limits, Sessions};
use axum::http::{Method, StatusCode};
use epoch_registry::{Domain, ManualClock, MonotonicClock};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const LIMITS: Limits =
    Limits { max_idle: Duration::from_secs(160), max_age: Duration::from_secs(1000), max_sessions: 1000 };

const SECOND: Duration = Duration::from_secs(1);

async fn start() -> Result<(Service, Client, ManualClock), Failure> {
    let clock = ManualClock::new();
    let service = Service::start("127.0.0.1:0", LIMITS, clock.clone()).await?;
    let client = Client::new(service.address());
    Ok((service, client, clock))
}

/// Shuts the service down. All `created` sessions must have been dropped.
async fn end(service: Service, created: u64) -> Result<(), Failure> {
    assert_eq!(service.shut_down().await?, Accounts { created, dropped: created, users: 0 });
    Ok(())
}

#[tokio::test]
async fn a_session_lasts_from_login_to_logout() -> Result<(), Failure> {
    let (service, client, _) = start().await?;
    client.get("/session").await?.expect(StatusCode::UNAUTHORIZED)?;
    let ada = client.log_in("ada").await?;
    let shown = ada.get("/session").await?.expect(StatusCode::OK)?.json()?;
    assert_eq!((&shown["user"], &shown["session"]["uses"]), (&"ada".into(), &1.into()));
    // By a bearer token as well.
    let token = ada.session().unwrap().to_string();
    let shown = client.get_with_token("/session", &token).await?.expect(StatusCode::OK)?.json()?;
    assert_eq!(shown["session"]["uses"], 2);
    // Not by another id, or by what is none.
    for other in [SessionId::random()?.to_string(), token[1..].to_string(), String::new()] {
        client.get_with_token("/session", &other).await?.expect(StatusCode::UNAUTHORIZED)?;
    }
    ada.post("/logout").await?.expect(StatusCode::NO_CONTENT)?;
    ada.get("/session").await?.expect(StatusCode::UNAUTHORIZED)?;
    ada.post("/logout").await?.expect(StatusCode::UNAUTHORIZED)?;
    end(service, 1).await
}

#[tokio::test]
async fn a_session_expires_when_it_is_idle() -> Result<(), Failure> {
    let (service, client, clock) = start().await?;
    let (used, idle) = (client.log_in("ada").await?, client.log_in("ada").await?);
    // Each use prolongs the life.
    for _ in 0..4 {
        clock.advance(100 * SECOND);
        used.get("/session").await?.expect(StatusCode::OK)?;
    }
    idle.get("/session").await?.expect(StatusCode::UNAUTHORIZED)?;
    let statistics = client.get("/statistics").await?.json()?;
    assert_eq!((&statistics["sessions"], &statistics["ended"]["idle"]), (&1.into(), &1.into()));
    // A list prolongs the life of the session that asks for it, and of no other.
    let other = client.log_in("ada").await?;
    clock.advance(100 * SECOND);
    let list = used.get("/sessions").await?.json()?;
    assert_eq!((&list["count"], &list["sessions"][1]["age_seconds"]), (&2.into(), &100.0.into()));
    // Idleness is known to a sixteenth.
    let left = list["sessions"][1]["expires_in_seconds"].as_f64().unwrap();
    assert!((60.0..70.1).contains(&left), "{left}");
    clock.advance(100 * SECOND);
    assert_eq!(used.get("/sessions").await?.json()?["count"], 1);
    other.get("/session").await?.expect(StatusCode::UNAUTHORIZED)?;
    used.get("/session").await?.expect(StatusCode::OK)?;
    end(service, 3).await
}

#[tokio::test]
async fn a_session_expires_when_it_is_old_however_much_it_is_used() -> Result<(), Failure> {
    let (service, client, clock) = start().await?;
    let ada = client.log_in("ada").await?;
    for _ in 0..10 {
        clock.advance(100 * SECOND);
        ada.get("/session").await?.expect(StatusCode::OK)?;
    }
    clock.advance(SECOND);
    ada.get("/session").await?.expect(StatusCode::UNAUTHORIZED)?;
    let statistics = client.get("/statistics").await?.json()?;
    assert_eq!((&statistics["users"], &statistics["ended"]["too_old"]), (&0.into(), &1.into()));
    end(service, 1).await
}

#[tokio::test]
async fn a_logout_everywhere_ends_the_sessions_of_one_user() -> Result<(), Failure> {
    let (service, client, _) = start().await?;
    let (ada, grace) = (client.log_in("ada").await?, client.log_in("grace").await?);
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(client.log_in("ada").await?);
    }
    let list = ada.get("/sessions").await?.expect(StatusCode::OK)?.json()?;
    assert_eq!(list["count"], 5);
    let numbers: Vec<_> = list["sessions"].as_array().unwrap().iter().map(|one| one["number"].clone()).collect();
    assert_eq!((numbers.len(), &numbers[0]), (5, &list["current"]));
    assert!(!String::from_utf8_lossy(&ada.get("/sessions").await?.body).contains(others[0].session().unwrap()));
    assert_eq!(others[1].post("/logout-everywhere").await?.expect(StatusCode::OK)?.json()?["ended"], 5);
    for session in others.iter().chain([&ada]) {
        session.get("/session").await?.expect(StatusCode::UNAUTHORIZED)?;
    }
    grace.get("/session").await?.expect(StatusCode::OK)?;
    let again = client.log_in("ada").await?;
    assert_eq!(again.get("/sessions").await?.json()?["count"], 1);
    end(service, 7).await
}

#[tokio::test]
async fn a_request_keeps_its_session_while_its_body_arrives() -> Result<(), Failure> {
    let (service, client, _) = start().await?;
    let ada = client.log_in("ada").await?;
    ada.put("/session/data", "before").await?.expect(StatusCode::NO_CONTENT)?;
    // A request whose body comes in two parts. The session ends in between.
    let begin = |length: usize| {
        format!(
            "PUT /session/data HTTP/1.1\r\nhost: x\r\ncookie: a=b; session={}\r\ncontent-length: {length}\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n",
            ada.session().unwrap()
        )
    };
    for (logs_out, status) in [(false, "204"), (true, "401")] {
        let mut stream = TcpStream::connect(service.address()).await?;
        stream.write_all(begin(5).as_bytes()).await?;
        // The server asks for the body, so the handler has the session by now.
        let mut asked = [0; 25];
        stream.read_exact(&mut asked).await?;
        assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"af").await?;
        if logs_out {
            ada.post("/logout-everywhere").await?.expect(StatusCode::OK)?;
        }
        stream.write_all(b"ter").await?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await?;
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{reply}");
        if !logs_out {
            assert_eq!(ada.get("/session/data").await?.body, "after");
        }
    }
    end(service, 1).await
}

#[tokio::test]
async fn wrong_requests_are_refused() -> Result<(), Failure> {
    let (service, client, _) = start().await?;
    for body in [r#"{"user": ""}"#, r#"{"name": "ada"}"#, "ada", "", &format!(r#"{{"user": "{}"}}"#, "x".repeat(101))] {
        let reply = client.send(Method::POST, "/login", body.to_string()).await?.expect(StatusCode::BAD_REQUEST)?;
        assert!(reply.json()?["error"].is_string());
    }
    let ada = client.log_in("ada").await?;
    ada.put("/session/data", vec![0; (64 << 10) + 1]).await?.expect(StatusCode::PAYLOAD_TOO_LARGE)?;
    ada.put("/session/data", vec![7; 64 << 10]).await?.expect(StatusCode::NO_CONTENT)?;
    assert_eq!(ada.get("/session/data").await?.body, vec![7; 64 << 10]);
    client.get("/nothing").await?.expect(StatusCode::NOT_FOUND)?;
    client.get("/login").await?.expect(StatusCode::METHOD_NOT_ALLOWED)?;
    end(service, 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_clients_are_served_and_everything_is_dropped() -> Result<(), Failure> {
    let limits =
        Limits { max_idle: Duration::from_secs(60), max_age: Duration::from_secs(60), max_sessions: 1_000_000 };
    let service = Service::start("127.0.0.1:0", limits, MonotonicClock).await?;
    let driven = drive(service.address(), 16, Duration::from_millis(500)).await?;
    assert!(driven.logins > 0);
    let statistics = Client::new(service.address()).get("/statistics").await?.json()?;
    assert_eq!(statistics["sessions"], driven.abandoned);
    assert_eq!(statistics["ended"]["logged_out"], driven.logouts);
    end(service, driven.logins).await
}

#[tokio::test]
async fn sessions_beyond_the_limit_end() -> Result<(), Failure> {
    let (service, client, _) = start().await?;
    for number in 0..1200 {
        client.log_in(&format!("user {}", number % 100)).await?;
    }
    let statistics = client.get("/statistics").await?.json()?;
    let (sessions, evicted) =
        (statistics["sessions"].as_u64().unwrap(), statistics["ended"]["evicted"].as_u64().unwrap());
    assert!(sessions <= 1000 && sessions + evicted == 1200, "{statistics}");
    end(service, 1200).await
}

/// A logout everywhere, logins and expiry of one user at the same time: the index of the user stays that of the sessions.
#[test]
fn the_index_of_a_user_is_that_of_the_sessions() {
    let (domain, clock) = (Domain::new(), ManualClock::new());
    let sessions = Arc::new(Sessions::new(&domain, LIMITS, clock.clone()));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (sessions, clock) = (sessions.clone(), clock.clone());
            scope.spawn(move || {
                for round in 0..2000 {
                    let session = sessions.log_in("ada").unwrap();
                    match (thread + round) % 4 {
                        0 => drop(sessions.log_out_everywhere(&session.user)),
                        1 => drop(sessions.log_out(&session)),
                        2 => clock.advance(SECOND),
                        _ => drop(sessions.use_session(*session.key())),
                    }
                }
            });
        }
    });
    let session = sessions.log_in("ada").unwrap();
    let (listed, statistics) = (sessions.list(&session.user), sessions.statistics());
    assert_eq!((statistics.users, listed.len()), (1, statistics.sessions));
    assert_eq!(sessions.log_out_everywhere(&session.user), listed.len());
    assert_eq!((sessions.statistics().users, sessions.statistics().sessions), (0, 0));
    drop((listed, session));
    domain.barrier();
    let statistics = sessions.statistics();
    assert_eq!((statistics.created, statistics.destroyed), (8001, 8001));
}

/// A handle may be held across an await of a task that moves between threads. A guard may not, nor a reader.
#[test]
fn handles_are_send_and_guards_are_not() {
    use crate::store::{Session, SessionHandle};
    use epoch_registry::{Guard, Reader};

    /// Of a type that is `Send`, `is_send` is that of the inherent implementation. Of another, it is that of the trait.
    struct Probe<T>(std::marker::PhantomData<T>);
    trait NotSend {
        fn is_send(&self) -> bool {
            false
        }
    }
    impl<T> NotSend for Probe<T> {}
    impl<T: Send> Probe<T> {
        fn is_send(&self) -> bool {
            true
        }
    }
    assert!(Probe::<SessionHandle>(std::marker::PhantomData).is_send());
    assert!(!Probe::<Guard<'_, SessionId, Session>>(std::marker::PhantomData).is_send());
    assert!(!Probe::<Reader<'_, SessionId, Session>>(std::marker::PhantomData).is_send());
}

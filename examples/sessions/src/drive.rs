//! Clients that know what the server must reply.

use crate::client::{Client, Failure};
use axum::http::StatusCode;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What clients have done.
#[derive(Clone, Copy, Default, Debug)]
pub struct Driven {
    pub requests: u64,
    pub logins: u64,
    pub logouts: u64,
    /// Sessions that were left without a logout.
    pub abandoned: u64,
}

/// Runs several clients for some time, each with a user of its own, and checks each reply.
///
/// # Errors
///
/// If a connection fails, or a reply is not what the client's requests before it require.
pub async fn drive(server: SocketAddr, clients: usize, time: Duration) -> Result<Driven, Failure> {
    let end = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for number in 0..clients {
        tasks.spawn(async move {
            let (client, mut driven, mut round) = (Client::new(server), Driven::default(), 0);
            while Instant::now() < end {
                visit(&client, &format!("user-{number}-{round}"), round % 2 == 0, &mut driven).await?;
                round += 1;
            }
            Ok::<_, Failure>(driven)
        });
    }
    let mut all = Driven::default();
    while let Some(driven) = tasks.join_next().await {
        let driven = driven??;
        all.requests += driven.requests;
        all.logins += driven.logins;
        all.logouts += driven.logouts;
        all.abandoned += driven.abandoned;
    }
    Ok(all)
}

/// A user logs in three times, uses one of the sessions, logs out of it, and then out of the others too, or leaves them.
async fn visit(client: &Client, user: &str, logs_out: bool, driven: &mut Driven) -> Result<(), Failure> {
    let sessions = [client.log_in(user).await?, client.log_in(user).await?, client.log_in(user).await?];
    let [first, second, third] = &sessions;
    for uses in 1..=5 {
        let shown = first.get("/session").await?.expect(StatusCode::OK)?.json()?;
        if shown["user"] != user || shown["session"]["uses"] != uses {
            return Err(format!("not {user} and {uses} uses: {shown}").into());
        }
    }
    first.put("/session/data", user.to_string()).await?.expect(StatusCode::NO_CONTENT)?;
    let data = first.get("/session/data").await?.expect(StatusCode::OK)?;
    let list = first.get("/sessions").await?.expect(StatusCode::OK)?.json()?;
    if data.body != user || list["count"] != 3 {
        return Err(format!("{:?} and {list} of {user}", data.body).into());
    }
    first.post("/logout").await?.expect(StatusCode::NO_CONTENT)?;
    first.get("/session").await?.expect(StatusCode::UNAUTHORIZED)?;
    // By a bearer token this time.
    let token = second.session().ok_or("a login without a session")?;
    client.get_with_token("/session", token).await?.expect(StatusCode::OK)?;
    driven.requests += 3 + 5 + 3 + 3;
    driven.logins += 3;
    driven.logouts += 1;
    if !logs_out {
        driven.abandoned += 2;
        return Ok(());
    }
    let ended = second.post("/logout-everywhere").await?.expect(StatusCode::OK)?.json()?;
    if ended["ended"] != 2 {
        return Err(format!("{user} had two sessions: {ended}").into());
    }
    third.get("/session").await?.expect(StatusCode::UNAUTHORIZED)?;
    driven.requests += 2;
    driven.logouts += 2;
    Ok(())
}

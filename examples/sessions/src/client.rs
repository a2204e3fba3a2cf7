//! A client that speaks HTTP, for the demonstration and the tests.

use axum::body::Bytes;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, SET_COOKIE};
use axum::http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use std::error::Error;
use std::net::SocketAddr;

pub type Failure = Box<dyn Error + Send + Sync>;

/// A client, with the session that it has logged in to. Clones share connections.
#[derive(Clone)]
pub struct Client {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    server: SocketAddr,
    /// The cookie of the session, as the server has set it.
    cookie: Option<String>,
}

/// The status and the body of a reply.
pub struct Reply {
    pub status: StatusCode,
    pub body: Bytes,
    cookie: Option<String>,
}

impl Reply {
    pub fn json(&self) -> Result<Value, Failure> {
        Ok(serde_json::from_slice(&self.body)?)
    }

    /// Returns the reply if it has this status.
    pub fn expect(self, status: StatusCode) -> Result<Reply, Failure> {
        if self.status == status {
            return Ok(self);
        }
        Err(format!("{} and not {status}: {}", self.status, String::from_utf8_lossy(&self.body)).into())
    }
}

impl Client {
    pub fn new(server: SocketAddr) -> Self {
        Client { http: HttpClient::builder(TokioExecutor::new()).build_http(), server, cookie: None }
    }

    /// Logs in. Returns a client with the session.
    pub async fn log_in(&self, user: &str) -> Result<Client, Failure> {
        let body = serde_json::json!({ "user": user }).to_string();
        let reply = self.send(Method::POST, "/login", body).await?.expect(StatusCode::CREATED)?;
        let cookie = reply.cookie.ok_or("a login without a cookie")?;
        Ok(Client { cookie: Some(cookie), ..self.clone() })
    }

    /// The id of the session.
    pub fn session(&self) -> Option<&str> {
        Some(self.cookie.as_deref()?.split_once('=')?.1)
    }

    pub async fn get(&self, path: &str) -> Result<Reply, Failure> {
        self.send(Method::GET, path, "").await
    }

    pub async fn post(&self, path: &str) -> Result<Reply, Failure> {
        self.send(Method::POST, path, "").await
    }

    pub async fn put(&self, path: &str, body: impl Into<Bytes>) -> Result<Reply, Failure> {
        self.send(Method::PUT, path, body).await
    }

    /// Sends a request with the session's cookie.
    pub async fn send(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Result<Reply, Failure> {
        let mut request = Request::builder().method(method).header(CONTENT_TYPE, "application/json");
        if let Some(cookie) = &self.cookie {
            request = request.header(COOKIE, cookie);
        }
        self.request(request.uri(self.uri(path)).body(Full::new(body.into()))?).await
    }

    /// Asks for a path, with a bearer token instead of a cookie.
    pub async fn get_with_token(&self, path: &str, token: &str) -> Result<Reply, Failure> {
        let request = Request::builder().uri(self.uri(path)).header(AUTHORIZATION, format!("Bearer {token}"));
        self.request(request.body(Full::default())?).await
    }

    fn uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.server)
    }

    async fn request(&self, request: Request<Full<Bytes>>) -> Result<Reply, Failure> {
        let reply = self.http.request(request).await?;
        let status = reply.status();
        let cookie = match reply.headers().get(SET_COOKIE) {
            Some(cookie) => cookie.to_str()?.split(';').next().map(str::to_string),
            None => None,
        };
        Ok(Reply { status, body: reply.into_body().collect().await?.to_bytes(), cookie })
    }
}

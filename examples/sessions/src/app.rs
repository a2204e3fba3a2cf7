//! The HTTP side: routes and handlers.
//!
//! A handler holds a [`SessionHandle`] for as long as it runs, and so across its awaits: a handle is one counted reference,
//! is `Send`, and holds up no reclamation. A guard or a reader is neither: the router does not accept a handler that holds
//! one across an await, as its future is not `Send`.

use crate::id::SessionId;
use crate::store::{SessionHandle, Sessions, Statistics};
use axum::body::{Body, to_bytes};
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequestParts, State};
use axum::http::header::{AUTHORIZATION, COOKIE, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

/// The longest name of a user.
const LONGEST_NAME: usize = 100;

/// The most bytes that a client may keep in a session.
const MOST_DATA: usize = 64 << 10;

/// The name of the cookie.
const SESSION: &str = "session";

/// Returns the application.
///
/// | request | reply |
/// |---|---|
/// | `POST /login` with `{"user": "ada"}` | 201, a cookie, and the id of the session |
/// | `GET /session` | the session: user, number, uses, age, and how long it lasts |
/// | `GET /session/data`, `PUT /session/data` | what the client keeps in its session |
/// | `GET /sessions` | all sessions of the user |
/// | `POST /logout` | 204 |
/// | `POST /logout-everywhere` | how many sessions have ended |
/// | `GET /statistics` | the statistics of the store |
///
/// All but the first and the last need a session, by its cookie or as a bearer token.
pub fn router(sessions: Arc<Sessions>) -> Router {
    Router::new()
        .route("/login", post(log_in))
        .route("/session", get(show))
        .route("/session/data", put(put_data).get(get_data))
        .route("/sessions", get(list))
        .route("/logout", post(log_out))
        .route("/logout-everywhere", post(log_out_everywhere))
        .route("/statistics", get(statistics))
        .with_state(sessions)
}

/// Why a request is refused.
enum Refused {
    NoSession,
    NotALogin(String),
    TooLarge,
    NoRandomNumbers,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, error) = match self {
            Refused::NoSession => (StatusCode::UNAUTHORIZED, "no session".to_string()),
            Refused::NotALogin(error) => (StatusCode::BAD_REQUEST, error),
            Refused::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, format!("more than {MOST_DATA} bytes")),
            Refused::NoRandomNumbers => (StatusCode::INTERNAL_SERVER_ERROR, "no random numbers".to_string()),
        };
        (status, Json(json!({ "error": error }))).into_response()
    }
}

/// The session of a request.
struct Current(SessionHandle);

impl FromRequestParts<Arc<Sessions>> for Current {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, sessions: &Arc<Sessions>) -> Result<Current, Refused> {
        let id = session_id(&parts.headers).ok_or(Refused::NoSession)?;
        sessions.use_session(id).map(Current).ok_or(Refused::NoSession)
    }
}

/// Returns the id of the session that a request names.
fn session_id(headers: &HeaderMap) -> Option<SessionId> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let cookie = || {
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(name, _)| *name == SESSION).map(|(_, id)| id)
    };
    bearer.or_else(cookie)?.parse().ok()
}

#[derive(Deserialize)]
struct Login {
    user: String,
}

/// Begins a session. The service stands behind one that has verified who the user is.
async fn log_in(
    State(sessions): State<Arc<Sessions>>,
    login: Result<Json<Login>, JsonRejection>,
) -> Result<impl IntoResponse, Refused> {
    let Json(Login { user }) = login.map_err(|rejection| Refused::NotALogin(rejection.body_text()))?;
    if user.is_empty() || user.len() > LONGEST_NAME {
        return Err(Refused::NotALogin(format!("a name has 1 to {LONGEST_NAME} bytes")));
    }
    let session = sessions.log_in(&user).map_err(|_| Refused::NoRandomNumbers)?;
    let limits = sessions.limits();
    let (id, seconds) = (session.key(), limits.max_age.as_secs());
    let cookie = format!("{SESSION}={id}; Path=/; Max-Age={seconds}; HttpOnly; Secure; SameSite=Lax");
    let body = json!({
        "session": id.to_string(),
        "max_idle_seconds": limits.max_idle.as_secs_f64(),
        "max_age_seconds": limits.max_age.as_secs_f64(),
    });
    Ok((StatusCode::CREATED, AppendHeaders([(SET_COOKIE, cookie)]), Json(body)))
}

async fn show(State(sessions): State<Arc<Sessions>>, Current(session): Current) -> impl IntoResponse {
    Json(json!({ "user": session.user.key(), "session": sessions.show(&session) }))
}

async fn get_data(Current(session): Current) -> impl IntoResponse {
    session.data().to_vec()
}

/// Replaces the data. The session may end while the body arrives, which may take long.
async fn put_data(Current(session): Current, body: Body) -> Result<StatusCode, Refused> {
    let data = to_bytes(body, MOST_DATA).await.map_err(|_| Refused::TooLarge)?;
    if session.is_unlinked() {
        return Err(Refused::NoSession);
    }
    session.set_data(&data);
    Ok(StatusCode::NO_CONTENT)
}

async fn list(State(sessions): State<Arc<Sessions>>, Current(session): Current) -> impl IntoResponse {
    let all = sessions.list(&session.user);
    Json(json!({ "count": all.len(), "current": session.number, "sessions": all }))
}

async fn log_out(State(sessions): State<Arc<Sessions>>, Current(session): Current) -> StatusCode {
    sessions.log_out(&session);
    StatusCode::NO_CONTENT
}

async fn log_out_everywhere(State(sessions): State<Arc<Sessions>>, Current(session): Current) -> impl IntoResponse {
    Json(json!({ "ended": sessions.log_out_everywhere(&session.user) }))
}

async fn statistics(State(sessions): State<Arc<Sessions>>) -> Json<Statistics> {
    Json(sessions.statistics())
}

//! `/api/tasks`: the platform's orders, passed on to wmits.

use std::time::Duration;

use aits_orders::{StartTask, Task, TaskList, TaskRef, method};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use baton_rpc::CallError;
use serde_json::error::Category;

use crate::{Door, Problem};

/// Longest body of an order, bytes.
const BODY_BYTES: usize = 64 << 10;
/// A body must be complete so soon.
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// `GET /api/tasks`: all tasks, an array.
pub async fn list(State(door): State<Door>) -> Result<Json<Vec<Task>>, Problem> {
    let list: TaskList = call(&door, method::TASK_LIST, &(), "").await?;
    Ok(Json(list.tasks))
}

/// `GET /api/tasks/{id}`.
pub async fn state(State(door): State<Door>, Path(id): Path<String>) -> Result<Json<Task>, Problem> {
    Ok(Json(call(&door, method::TASK_STATE, &TaskRef { id: id.clone() }, &id).await?))
}

/// `POST /api/tasks`: 201 for a new task, 200 for one that was there.
pub async fn start(State(door): State<Door>, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let order: StartTask = read_json(&headers, body).await?;
    let known = match &order.id {
        None => false,
        Some(id) => is_known(&door, id).await?,
    };
    let id = order.id.clone().unwrap_or_default();
    let task: Task = call(&door, method::TASK_START, &order, &id).await?;
    let status = if known { StatusCode::OK } else { StatusCode::CREATED };
    // Ids consist of characters that need no escaping in a path.
    let location = format!("/api/tasks/{}", task.id);
    Ok((status, [(header::LOCATION, location)], Json(task)).into_response())
}

/// `POST /api/tasks/{id}/stop`.
pub async fn stop(State(door): State<Door>, Path(id): Path<String>) -> Result<Json<Task>, Problem> {
    Ok(Json(call(&door, method::TASK_STOP, &TaskRef { id: id.clone() }, &id).await?))
}

/// `DELETE /api/tasks/{id}`.
pub async fn delete(State(door): State<Door>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let _task: Task = call(&door, method::TASK_DELETE, &TaskRef { id: id.clone() }, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn is_known(door: &Door, id: &str) -> Result<bool, Problem> {
    let asked: Result<Task, CallError> =
        door.peers().wmits.call(method::TASK_STATE, &TaskRef { id: id.to_owned() }).await;
    match asked {
        Ok(_) => Ok(true),
        // Not there, or an id that no task can have: starting it will say which.
        Err(CallError::Remote(_)) => Ok(false),
        Err(error) => Err(Problem::away("wmits", error)),
    }
}

async fn call<P: serde::Serialize, R: serde::de::DeserializeOwned>(
    door: &Door,
    method: &str,
    params: &P,
    id: &str,
) -> Result<R, Problem> {
    let answer = door.peers().wmits.call(method, params).await;
    answer.map_err(|error| Problem::from_call("wmits", error, || Problem::unknown_task(id)))
}

/// Reads a JSON body within bounds. A foreign page cannot send `application/json` without the door's consent.
async fn read_json<T: serde::de::DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not_json",
            "send the order as JSON, with the header `Content-Type: application/json`",
        ));
    }
    let read = tokio::time::timeout(BODY_LIMIT, axum::body::to_bytes(body, BODY_BYTES)).await;
    let bytes = match read {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                format!("an order has at most {BODY_BYTES} bytes"),
            ));
        }
        Err(_) => {
            return Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "too_slow",
                "the body did not come in time",
            ));
        }
    };
    serde_json::from_slice(&bytes).map_err(|error| match error.classify() {
        Category::Data => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", format!("{error}")),
        _ => Problem::new(StatusCode::BAD_REQUEST, "bad_json", format!("the body is not JSON: {error}")),
    })
}

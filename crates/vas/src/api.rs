//! The RPC methods of vas.

use std::sync::Arc;
use std::time::Duration;

use aits_orders::{CloseStream, OpenStream, Opened, StreamsQuery, method};
use baton_rpc::{Router, RpcError};

use crate::desk::{Desk, Refusal};

/// Longest wait that a caller is granted.
const WAIT_MS_MAX: u32 = 10_000;

/// `vas.open`, `vas.close` and `vas.streams` on this desk.
pub(crate) fn router(desk: Arc<Desk>) -> Router {
    let (opening, closing, telling) = (Arc::clone(&desk), Arc::clone(&desk), desk);
    Router::new()
        .method(method::VAS_OPEN, move |order: OpenStream| {
            let desk = Arc::clone(&opening);
            async move { desk.open(order).map(|already| Opened { already }).map_err(refused) }
        })
        .method(method::VAS_CLOSE, move |order: CloseStream| {
            let desk = Arc::clone(&closing);
            async move {
                desk.close(order.stream);
                Ok(())
            }
        })
        .method(method::VAS_STREAMS, move |query: StreamsQuery| {
            let desk = Arc::clone(&telling);
            async move {
                let patience = Duration::from_millis(query.wait_ms.min(WAIT_MS_MAX).into());
                Ok(desk.told_after(query.version, patience).await)
            }
        })
}

fn refused(refusal: Refusal) -> RpcError {
    match refusal {
        Refusal::Order(sentence) => RpcError::invalid_params(sentence),
        Refusal::Full(sentence) => RpcError::failed(sentence),
    }
}

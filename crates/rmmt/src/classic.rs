//! Classic clients: the old protocol, for which the daemon does what members do themselves.

use std::rc::Rc;

use baton_address::Stream;

use crate::daemon::House;
use crate::door::SNIFFED;
use crate::registry::Peer;

/// Serves a classic client to its end. `peer` is who the kernel says it is (`None` over TCP), `first` the first bytes of
/// its hello, `known` is called once when it is no stranger any more.
pub(crate) async fn serve(
    _house: Rc<House>,
    stream: Stream,
    peer: Option<Peer>,
    number: u64,
    first: [u8; SNIFFED],
    _known: impl FnOnce(),
) {
    let pid = i32::from_le_bytes(first);
    tracing::warn!(
        "rmmt: connection {number}: a classic client that calls itself pid={pid} is refused ({peer:?}): this daemon \
         serves attached members only"
    );
    drop(stream);
}

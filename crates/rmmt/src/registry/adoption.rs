//! A new daemon takes over the members of the one before.

use std::rc::Rc;

use baton_keeper::Deposit;
use baton_pool::{EndpointKind, EndpointState};

use super::{Cause, Entry, Note, Registry, Shared, deposit_key, watch};
use crate::watch::{Process, ProcessError};

impl Registry {
    /// Takes over the endpoints that the pool's table and the keeper's deposits name, reaps those whose process is gone.
    pub(crate) fn adopt(shared: &Shared, mut deposits: Vec<Deposit>) {
        let found = shared.borrow().pool.endpoints();
        let mut adopted = 0usize;
        for info in found {
            let endpoint = info.endpoint;
            if info.kind != EndpointKind::Attached {
                // A classic client, whose connection ended with that daemon, or that daemon itself.
                shared.borrow().take_back(endpoint, info.pid, &info.name, Cause::Ended);
                continue;
            }
            let key = deposit_key(endpoint);
            let deposit = deposits.iter().position(|d| d.key == key).map(|at| deposits.swap_remove(at));
            let note = deposit.as_ref().and_then(|d| serde_json::from_slice::<Note>(&d.note).ok());
            let process = Process::open(info.pid, info.start_time);
            let mut registry = shared.borrow_mut();
            if info.state == EndpointState::Dead {
                // The daemon before was killed while it took this one back.
                registry.take_back(endpoint, info.pid, &info.name, Cause::Died);
                continue;
            }
            match (deposit, note, process) {
                (Some(deposit), Some(note), Ok(process)) => {
                    let entry = Entry {
                        endpoint,
                        pid: info.pid,
                        name: info.name.clone(),
                        inbox: info.inbox.clone().filter(|_| info.state == EndpointState::Live),
                        note,
                        session: None,
                        wake: deposit.fd,
                        process: Rc::new(process),
                        watcher: None,
                    };
                    registry.entries.insert(endpoint.id, entry);
                    drop(registry);
                    watch(shared, endpoint);
                    adopted += 1;
                }
                (_, _, Err(ProcessError::Io { pid, source })) => {
                    // Not known to be dead: what it holds stays untouched. The next daemon, or a restart, will see.
                    tracing::error!("rmmt: pid={pid} endpoint={} cannot be followed: {source}", endpoint.id);
                }
                (_, _, Err(ProcessError::Ended { .. })) => {
                    registry.take_back(endpoint, info.pid, &info.name, Cause::Died);
                }
                _ => registry.take_back(endpoint, info.pid, &info.name, Cause::Unfinished),
            }
        }
        let registry = shared.borrow();
        if let Some(ward) = &registry.ward {
            for stale in deposits {
                // Reaped in the pool already, but its daemon was killed before it told the keeper.
                if let Err(error) = ward.withdraw(&stale.key) {
                    tracing::warn!("rmmt: {error}");
                }
            }
        }
        tracing::info!("rmmt: adopted the pool of the daemon before, with {adopted} living members");
    }
}

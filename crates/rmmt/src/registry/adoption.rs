//! A new daemon takes over the members of the one before.

use std::os::unix::fs::MetadataExt;
use std::rc::Rc;

use baton_keeper::Deposit;
use baton_killpoint::step;
use baton_pool::{EndpointInfo, EndpointKind, EndpointState};
use rustix::event::EventfdFlags;

use super::{Cause, Entry, Note, Registry, Shared, Standing, deposit_key, watch};
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
            let kept = deposit.map(|d| d.fd).zip(note);
            match (kept, process) {
                (Some((wake, note)), Ok(process)) => {
                    let entry = Entry {
                        endpoint,
                        pid: info.pid,
                        name: info.name.clone(),
                        inbox: info.inbox.clone().filter(|_| info.state == EndpointState::Live),
                        note,
                        session: None,
                        wake,
                        process: Rc::new(process),
                        watcher: None,
                    };
                    registry.entries.insert(endpoint.id, entry);
                    drop(registry);
                    watch(shared, endpoint);
                    step!(AdoptEntered);
                    adopted += 1;
                }
                (_, Err(ProcessError::Io { pid, source })) => {
                    // Not known to be dead: what it holds stays untouched. The next daemon, or a restart, will see.
                    tracing::error!("rmmt: pid={pid} endpoint={} cannot be followed: {source}", endpoint.id);
                }
                (_, Err(ProcessError::Ended { .. })) => {
                    registry.take_back(endpoint, info.pid, &info.name, Cause::Died);
                    step!(AdoptTakenBack);
                }
                (None, Ok(process)) => {
                    drop(registry);
                    match Self::silenced(shared, &info, process) {
                        Ok(()) => adopted += 1,
                        Err(error) => {
                            tracing::error!("rmmt: endpoint={} stays as it is: {error}", endpoint.id)
                        }
                    }
                }
            }
        }
        step!(AdoptDone);
        let registry = shared.borrow();
        for stale in deposits {
            // Reaped in the pool already, but its daemon was killed before it told the keeper.
            registry.chest.withdraw(&stale.key);
        }
        drop(registry);
        shared.borrow_mut().mend_extents();
        // Now that all descriptors are here: the daemon before may have been killed before it wrote to one.
        let registry = shared.borrow();
        registry.wake(&registry.pool.take_sleepers());
        drop(registry);
        tracing::info!("rmmt: adopted the pool of the daemon before, with {adopted} living members");
    }

    /// An endpoint of a living process of which the keeper knows nothing: the daemon before was killed before its first
    /// answer, or the keeper could not hold its descriptor. Nobody can wake it or speak for it any more, but what it may
    /// be using is not taken from it while it lives.
    fn silenced(shared: &Shared, info: &EndpointInfo, process: Process) -> std::io::Result<()> {
        let endpoint = info.endpoint;
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let uid = std::fs::metadata(format!("/proc/{}", info.pid)).map_or(u32::MAX, |meta| meta.uid());
        let note = Note { uid, read_only: false, token: 0, standing: Standing::Present, born: u64::MAX };
        let entry = Entry {
            endpoint,
            pid: info.pid,
            name: info.name.clone(),
            inbox: None,
            note,
            session: None,
            wake,
            process: Rc::new(process),
            watcher: None,
        };
        tracing::warn!(
            "rmmt: pid={} name={} endpoint={} lives, but its way to the daemon is lost; its inbox is closed and its blocks \
             stay",
            info.pid,
            info.name,
            endpoint.id
        );
        let mut registry = shared.borrow_mut();
        registry.entries.insert(endpoint.id, entry);
        registry.close(endpoint, Standing::HungUp);
        drop(registry);
        watch(shared, endpoint);
        Ok(())
    }
}

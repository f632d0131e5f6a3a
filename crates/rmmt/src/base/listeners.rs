//! Where clients come: the addresses as they were given, and the sockets that listen there.

use std::net::ToSocketAddrs;
use std::path::Path;

use baton_address::{Address, Listener};
use baton_keeper::{Deposit, WardError};
use baton_killpoint::step;

use super::{BaseError, LISTENER, METRICS};
use crate::Args;
use crate::chest::Chest;

/// The addresses of `--listen`, checked before anything is made.
#[derive(Debug)]
pub(crate) struct Places {
    clients: Vec<Place>,
    /// For scrapes.
    metrics: Option<Place>,
}

/// Sockets that listen.
pub(crate) struct Listeners {
    pub(crate) clients: Vec<Listener>,
    pub(crate) metrics: Option<Listener>,
}

#[derive(Debug)]
struct Place {
    given: String,
    address: Address,
}

impl Places {
    /// Reads the addresses: at least one Unix socket (members attach there), and nothing that other machines reach
    /// unless that was asked for.
    pub(crate) fn parse(args: &Args) -> Result<Self, BaseError> {
        let mut places = Vec::<Place>::new();
        for given in &args.listen {
            let error = |reason: String| BaseError::Address { given: given.clone(), reason };
            let address = given.parse::<Address>().map_err(|e| error(e.to_string()))?;
            if let Address::Tcp { host, port } = &address
                && !args.allow_remote
                && !is_local(host, *port)
            {
                return Err(error(
                    "that is not an address of this machine alone; use ip://127.0.0.1:PORT, or --allow-remote if \
                     everybody who reaches it may use the pool"
                        .to_owned(),
                ));
            }
            if places.iter().any(|place| place.address == address && !is_any_port(&address)) {
                return Err(error("it is given twice".to_owned()));
            }
            places.push(Place { given: given.clone(), address });
        }
        if !places.iter().any(|place| matches!(place.address, Address::Unix { .. })) {
            let given = args.listen.join(" --listen ");
            let reason = "members attach over a Unix socket; give --listen un://PATH, too".to_owned();
            return Err(BaseError::Address { given, reason });
        }
        let metrics = args.metrics.as_ref().map(|given| Place::for_metrics(given, args.allow_remote));
        Ok(Self { clients: places, metrics: metrics.transpose()? })
    }

    /// The paths of the Unix sockets.
    pub(super) fn sockets(&self) -> impl Iterator<Item = &Path> {
        self.clients.iter().filter_map(|place| match &place.address {
            Address::Unix { path } => Some(path.as_path()),
            Address::Tcp { .. } => None,
        })
    }

    /// The one whose lock says who serves.
    pub(crate) fn first_socket(&self) -> &Path {
        self.sockets().next().unwrap_or(Path::new(""))
    }

    /// Listens everywhere: with the sockets of the daemon before where there are any, with new ones elsewhere. A socket
    /// of the daemon before that nobody asks for any more is closed.
    pub(super) fn listen(&self, chest: &mut Chest, mut held: Vec<Deposit>) -> Result<Listeners, BaseError> {
        let mut clients = Vec::new();
        for (number, place) in self.clients.iter().enumerate() {
            clients.push(place.listen(format!("{LISTENER}{number}"), chest, &mut held)?);
        }
        let metrics = self.metrics.as_ref().map(|place| place.listen(METRICS.to_owned(), chest, &mut held));
        let metrics = metrics.transpose()?;
        for stale in held {
            chest.withdraw(&stale.key);
        }
        Ok(Listeners { clients, metrics })
    }
}

impl Place {
    fn for_metrics(given: &str, allow_remote: bool) -> Result<Self, BaseError> {
        let error = |reason: &str| BaseError::Metrics { given: given.to_owned(), reason: reason.to_owned() };
        let address = given.parse::<Address>().map_err(|e| error(&e.to_string()))?;
        match &address {
            Address::Unix { .. } => Err(error("metrics are scraped over TCP; use ip://127.0.0.1:PORT")),
            Address::Tcp { host, port } if !allow_remote && !is_local(host, *port) => {
                let names = "that is not an address of this machine alone, and the metrics name processes; use \
                             ip://127.0.0.1:PORT, or --allow-remote";
                Err(error(names))
            }
            Address::Tcp { .. } => Ok(Self { given: given.to_owned(), address }),
        }
    }

    /// Listens with the socket that the daemon before had under `key`, or with a new one.
    fn listen(&self, key: String, chest: &mut Chest, held: &mut Vec<Deposit>) -> Result<Listener, BaseError> {
        let Self { given, address } = self;
        // The number in the key counts as well: two `ip://127.0.0.1:0` are two listeners.
        let at = held.iter().position(|d| d.key == key && d.note == given.as_bytes());
        let before = at.map(|at| held.swap_remove(at).fd);
        match before.map(Listener::from_fd) {
            Some(Ok(listener)) => {
                chest.own(&key, given.as_bytes(), &listener).map_err(WardError::from)?;
                Ok(listener)
            }
            Some(Err(source)) => Err(BaseError::Listener { given: given.clone(), source }),
            None => {
                // The guard of its file would remove it when this process unwinds, but then the keeper still has the
                // socket and the next daemon serves it. The file goes with `Files::remove`, at a clean end only.
                let listener = address.bind()?.leave_file();
                step!(StartBound);
                chest.put(&key, given.as_bytes(), &listener)?;
                step!(StartListenerDeposited);
                Ok(listener)
            }
        }
    }
}

fn is_any_port(address: &Address) -> bool {
    matches!(address, Address::Tcp { port: 0, .. })
}

/// Whether `host` means this machine to this machine only. A name that cannot be looked up does not.
fn is_local(host: &str, port: u16) -> bool {
    (host, port).to_socket_addrs().is_ok_and(|mut found| found.all(|address| address.ip().is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(listen: &[&str], allow_remote: bool) -> Result<Places, BaseError> {
        let mut args = Args::new("");
        args.listen = listen.iter().map(ToString::to_string).collect();
        args.allow_remote = allow_remote;
        Places::parse(&args)
    }

    #[test]
    fn one_unix_socket_at_least() {
        let places = parse(&["ip://127.0.0.1:0", "un:///tmp/x.sock", "ip://127.0.0.1:0"], false).unwrap();
        assert_eq!(places.first_socket(), Path::new("/tmp/x.sock"));
        for listen in [&["ip://127.0.0.1:1"][..], &["/tmp/x.sock"], &["un://"], &["un:///x", "un:///x"]] {
            let error = parse(listen, false).unwrap_err();
            assert!(error.is_config() && error.to_string().contains("--listen"), "{error}");
        }
    }

    #[test]
    fn metrics_are_for_this_machine_unless_asked() {
        let mut args = Args::new("un:///tmp/x.sock");
        for (given, says) in
            [("un:///m", "over TCP"), ("ip://0.0.0.0:0", "--allow-remote"), ("9464", "--metrics")]
        {
            args.metrics = Some(given.to_owned());
            let error = Places::parse(&args).unwrap_err();
            assert!(error.is_config() && error.to_string().contains(says), "{error}");
        }
        args.allow_remote = true;
        args.metrics = Some("ip://0.0.0.0:0".to_owned());
        Places::parse(&args).unwrap();
    }

    #[test]
    fn other_machines_only_when_asked() {
        for host in ["0.0.0.0:0", "192.0.2.1:7", "[::]:7"] {
            let uri = format!("ip://{host}");
            let error = parse(&["un:///x", &uri], false).unwrap_err().to_string();
            assert!(error.contains("--allow-remote"), "{error}");
            parse(&["un:///x", &uri], true).unwrap();
        }
    }
}

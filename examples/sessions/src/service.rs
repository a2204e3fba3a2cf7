//! The service: a store, served by HTTP until it is told to stop.

use crate::app::router;
use crate::store::{Accounts, Limits, Sessions};
use epoch_registry::{Clock, Domain};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, ToSocketAddrs};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A service that runs as a task.
pub struct Service {
    sessions: Arc<Sessions>,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<io::Result<()>>,
}

impl Service {
    /// Starts the service on the runtime that the caller runs on.
    ///
    /// # Errors
    ///
    /// If the address cannot be bound.
    pub async fn start(address: impl ToSocketAddrs, limits: Limits, clock: impl Clock) -> io::Result<Service> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let sessions = Arc::new(Sessions::new(&domain(), limits, clock));
        let (stop, stopped) = oneshot::channel();
        let app = router(sessions.clone());
        let serving = tokio::spawn(async move {
            let until = async {
                // (The other end may have been dropped, which is a reason to stop, too.)
                let _ = stopped.await;
            };
            axum::serve(listener, app).with_graceful_shutdown(until).await
        });
        Ok(Service { sessions, address, stop, serving })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more connections, lets the requests under way end, and ends all sessions. Returns the accounts after
    /// everything is destroyed.
    ///
    /// # Errors
    ///
    /// If the service has failed.
    pub async fn shut_down(self) -> io::Result<Accounts> {
        // (There is no receiver if the service has failed, which is returned below.)
        let _ = self.stop.send(());
        self.serving.await??;
        Ok(self.sessions.shut_down().await)
    }
}

/// Makes a domain whose values are destroyed by a task of this runtime.
fn domain() -> Domain {
    let runtime = tokio::runtime::Handle::current();
    Domain::builder()
        .name("sessions")
        .executor(move |job| drop(runtime.spawn(job.run_with(tokio::time::sleep))))
        .build()
}

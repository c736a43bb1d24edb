//! SIGTERM and SIGINT: the first asks for an orderly end, the second does not wait for it.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// What a shell reports for a process that ended by SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

/// Hears the first signal.
#[derive(Debug)]
pub struct Shutdown {
    asked: mpsc::UnboundedReceiver<&'static str>,
}

impl Shutdown {
    /// Takes the signals over. From then on the second of them ends the process at once, without draining anything;
    /// records that were acknowledged survive that too.
    pub fn listen() -> io::Result<Self> {
        let (asks, asked) = mpsc::unbounded_channel();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::spawn(async move {
            // When nobody listens any more the process is ending by itself: the next signal hurries it.
            let _ = asks.send(next(&mut terminate, &mut interrupt).await);
            next(&mut terminate, &mut interrupt).await;
            std::process::exit(EXIT_INTERRUPTED);
        });
        Ok(Self { asked })
    }

    /// Waits for the first signal and names it.
    pub async fn asked(&mut self) -> &'static str {
        // The task above holds the other end for as long as the runtime runs.
        self.asked.recv().await.unwrap_or("SIGTERM")
    }
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

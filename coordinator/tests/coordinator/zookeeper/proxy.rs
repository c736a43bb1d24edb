//! A network that loses what a test tells it to lose: a proxy that knows ZooKeeper's frames.
//!
//! A frame is its length (u32, big-endian) and so many bytes. Requests begin with i32 xid, i32 operation; replies with
//! i32 xid. The first frame of each direction opens the session and has neither.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::conformance::PATIENCE;

/// ZooKeeper's numbers of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create = 1,
    Delete = 2,
    SetData = 5,
    Create2 = 15,
}

/// Cuts the connection once, …
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// … instead of forwarding a request.
    Request(Operation),
    /// … instead of forwarding the reply to one.
    Reply(Operation),
}

pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    accepting: Mutex<Option<std::thread::JoinHandle<()>>>,
}

struct Shared {
    server: u16,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cut: bool,
    loss: Option<Loss>,
    /// The request whose reply is to be lost.
    doomed: Option<i32>,
    /// The next connection's first reply is forwarded twice.
    misalign: bool,
    /// How many requests passed.
    requests: u64,
    open: Vec<TcpStream>,
}

impl Proxy {
    pub fn before(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared { server, state: Mutex::default() });
        let accepting = Mutex::new(Some(accept(Arc::clone(&shared), listener)));
        Self { port, shared, accepting }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Loses something once.
    pub fn lose(&self, loss: Loss) {
        self.shared.state().loss = Some(loss);
    }

    /// Whether it is lost.
    pub fn has_lost(&self) -> bool {
        let state = self.shared.state();
        state.loss.is_none() && state.doomed.is_none()
    }

    /// Gives the next connection one reply too many, as bytes of an earlier connection would be: the reply that opens it,
    /// and again when the first request is under way.
    pub fn misalign(&self) {
        self.shared.state().misalign = true;
    }

    /// Cuts all connections and refuses new ones.
    pub fn cut(&self) {
        self.shared.state().cut = true;
        // Wakes the thread, which leaves and takes the listener with it.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        if let Some(thread) = self.accepting.lock().expect("no panic").take() {
            thread.join().expect("no panic");
        }
        self.shared.state().cut_open();
    }

    /// Lets everything through again.
    pub fn mend(&self) {
        self.shared.state().cut = false;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).expect("its own port");
        *self.accepting.lock().expect("no panic") = Some(accept(Arc::clone(&self.shared), listener));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request passes.
    fn request_passes(&self, frame: &[u8]) -> bool {
        let (xid, operation) = (number(frame, 0), number(frame, 4));
        let mut state = self.state();
        state.requests += 1;
        match state.loss {
            Some(Loss::Request(lost)) if operation == Some(lost as i32) => {
                state.loss = None;
                false
            }
            Some(Loss::Reply(lost)) if operation == Some(lost as i32) => {
                state.loss = None;
                state.doomed = xid;
                true
            }
            _ => true,
        }
    }

    /// Whether a reply passes.
    fn reply_passes(&self, frame: &[u8]) -> bool {
        let mut state = self.state();
        let doomed = state.doomed.is_some() && state.doomed == number(frame, 0);
        if doomed {
            state.doomed = None;
        }
        !doomed
    }

    /// Lets the first reply of a connection pass, once more than it should be if so told.
    fn open(&self, frame: &[u8], mut client: &TcpStream) -> io::Result<()> {
        let before = {
            let mut state = self.state();
            if !std::mem::take(&mut state.misalign) {
                return Ok(());
            }
            state.requests
        };
        client.write_all(&[&(frame.len() as u32).to_be_bytes()[..], frame].concat())?;
        let deadline = Instant::now() + PATIENCE;
        while self.state().requests == before && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn connect(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, self.server))?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            self.state().open.push(stream.try_clone()?);
        }
        let (upward, downward) = (Arc::clone(self), Arc::clone(self));
        let (from, to) = (client.try_clone()?, server.try_clone()?);
        std::thread::spawn(move || pump(from, to, |frame, first| first || upward.request_passes(frame)));
        std::thread::spawn(move || {
            let twin = client.try_clone();
            pump(server, client, |frame, first| match first {
                true => twin.as_ref().is_ok_and(|twin| downward.open(frame, twin).is_ok()),
                false => downward.reply_passes(frame),
            });
        });
        Ok(())
    }
}

impl State {
    fn cut_open(&mut self) {
        for stream in self.open.drain(..) {
            // It may be closed already.
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

fn accept(shared: Arc<Shared>, listener: TcpListener) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for client in listener.incoming() {
            if shared.state().cut {
                return;
            }
            // A server that is not there is the client's problem.
            drop(client.and_then(|client| shared.connect(client)));
        }
    })
}

/// Forwards frames until one does not pass or a side is gone; then both sides are.
fn pump(mut from: TcpStream, mut to: TcpStream, passes: impl Fn(&[u8], bool) -> bool) {
    let mut next = |first: bool| -> io::Result<bool> {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        from.read_exact(&mut body)?;
        let passes = passes(&body, first);
        if passes {
            to.write_all(&[&length[..], &body].concat())?;
        }
        Ok(passes)
    };
    let mut first = true;
    while next(first).is_ok_and(|passed| passed) {
        first = false;
    }
    for stream in [&from, &to] {
        drop(stream.shutdown(Shutdown::Both));
    }
}

fn number(frame: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?))
}

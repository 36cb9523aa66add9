//! The near side: streams with a buffer in front, and one that callers share.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use bytes::Bytes;
use meter::{Ground, Target, Workload};
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use tokio::sync::{mpsc, oneshot};

use crate::settings::Settings;
use crate::{COUNT, ECHO, HEADER};

/// What is gathered before it is written.
const BATCH: usize = 64 << 10;

/// Calls that wait for the writer.
const CALLS: usize = 4_096;

/// Calls are of one size.
const CALL: usize = 64;

pub(crate) struct Near {
    connection: Connection,
    /// Several callers share one stream; one caller has its own.
    shared: Option<mpsc::Sender<Call>>,
    /// Many receivers are one stream.
    one_stream: bool,
    _endpoint: Endpoint,
}

struct Call {
    message: [u8; CALL],
    done: oneshot::Sender<()>,
}

/// A stream of its own, opened when it is first used; a clone opens another.
pub(crate) struct Line {
    connection: Connection,
    shared: Option<mpsc::Sender<Call>>,
    counted: Option<Stream>,
    echoed: Option<Stream>,
    /// Whether all lines are this one.
    all: Option<Arc<tokio::sync::Mutex<Stream>>>,
}

struct Stream {
    send: SendStream,
    receive: RecvStream,
    gathered: Vec<u8>,
}

impl Near {
    pub(crate) async fn connect(ground: &Ground, contact: &str) -> Result<Self> {
        let (address, digits) = contact.split_once(' ').context("an address and a certificate")?;
        let digit = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair)?, 16).context("hex");
        let certificate: Result<Vec<u8>> = digits.as_bytes().chunks(2).map(digit).collect();
        let endpoint = Settings::from_environment().client(certificate?)?;
        let address: SocketAddr = ground.route(address.parse()?)?;
        let connection = endpoint.connect(address, "localhost")?.await?;
        let many = matches!(ground.task.workload, Workload::Calls { callers } if callers > 1);
        let shared = if many { Some(share(&connection).await?) } else { None };
        let one_stream = ground.task.workload == Workload::FanOut;
        Ok(Self { connection, shared, one_stream, _endpoint: endpoint })
    }

    pub(crate) async fn lines(&self, count: usize) -> Result<Vec<Line>> {
        let all = if self.one_stream {
            let stream = Stream::open(&self.connection, COUNT).await?;
            Some(Arc::new(tokio::sync::Mutex::new(stream)))
        } else {
            None
        };
        let line = Line {
            connection: self.connection.clone(),
            shared: self.shared.clone(),
            counted: None,
            echoed: None,
            all,
        };
        Ok(vec![line; count])
    }
}

impl Clone for Line {
    fn clone(&self) -> Self {
        Self {
            connection: self.connection.clone(),
            shared: self.shared.clone(),
            counted: None,
            echoed: None,
            all: self.all.clone(),
        }
    }
}

impl Stream {
    async fn open(connection: &Connection, kind: u8) -> Result<Self> {
        let (mut send, receive) = connection.open_bi().await?;
        send.write_all(&[kind]).await?;
        Ok(Self { send, receive, gathered: Vec::with_capacity(2 * BATCH) })
    }

    async fn write(&mut self, message: &Bytes) -> Result<()> {
        self.gathered.extend_from_slice(&u32::try_from(message.len())?.to_le_bytes());
        if message.len() >= BATCH {
            self.flush().await?;
            self.send.write_chunk(message.clone()).await?;
            return Ok(());
        }
        self.gathered.extend_from_slice(message);
        if self.gathered.len() >= BATCH {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        self.send.write_all(&self.gathered).await?;
        self.gathered.clear();
        Ok(())
    }

    /// The stream's own count, and that of all.
    async fn counts(&mut self) -> Result<(u64, u64)> {
        self.gathered.extend_from_slice(&[0; HEADER]);
        self.flush().await?;
        let (mut own, mut all) = ([0; 8], [0; 8]);
        self.receive.read_exact(&mut own).await?;
        self.receive.read_exact(&mut all).await?;
        Ok((u64::from_le_bytes(own), u64::from_le_bytes(all)))
    }
}

async fn opened<'a>(
    stream: &'a mut Option<Stream>,
    connection: &Connection,
    kind: u8,
) -> Result<&'a mut Stream> {
    if stream.is_none() {
        *stream = Some(Stream::open(connection, kind).await?);
    }
    stream.as_mut().context("it was opened")
}

impl Line {
    pub(crate) async fn write(&mut self, message: &Bytes) -> Result<()> {
        match &self.all {
            Some(stream) => stream.lock().await.write(message).await,
            None => opened(&mut self.counted, &self.connection, COUNT).await?.write(message).await,
        }
    }

    async fn counts(&mut self) -> Result<(u64, u64)> {
        match &self.all {
            Some(stream) => stream.lock().await.counts().await,
            None => opened(&mut self.counted, &self.connection, COUNT).await?.counts().await,
        }
    }
}

impl Target for Line {
    async fn send(&mut self, message: &Bytes) -> Result<()> {
        self.write(message).await
    }

    async fn call(&mut self, message: &Bytes) -> Result<usize> {
        if let Some(shared) = &self.shared {
            let (done, told) = oneshot::channel();
            shared.send(Call { message: message[..].try_into()?, done }).await?;
            told.await?;
            return Ok(CALL);
        }
        let stream = opened(&mut self.echoed, &self.connection, ECHO).await?;
        if message.len() == CALL {
            stream.send.write_all(message).await?;
            let mut answer = [0; CALL];
            stream.receive.read_exact(&mut answer).await?;
            return Ok(CALL);
        }
        // It comes back while it is still being sent.
        let (send, receive) = (&mut stream.send, &mut stream.receive);
        let back = async {
            let mut got = 0;
            while got < message.len() {
                let chunk = receive.read_chunk(message.len() - got, true).await?;
                got += chunk.context("the stream ended")?.bytes.len();
            }
            anyhow::Ok(got)
        };
        let (sent, got) = tokio::join!(send.write_chunk(message.clone()), back);
        sent?;
        got
    }

    async fn count(&mut self) -> Result<u64> {
        Ok(self.counts().await?.0)
    }

    async fn total(&mut self) -> Result<u64> {
        Ok(self.counts().await?.1)
    }
}

/// One stream for many callers: answers come in the order of the calls.
async fn share(connection: &Connection) -> Result<mpsc::Sender<Call>> {
    let Stream { mut send, mut receive, .. } = Stream::open(connection, ECHO).await?;
    let (calls, mut waiting) = mpsc::channel::<Call>(CALLS);
    let open: Arc<Mutex<VecDeque<oneshot::Sender<()>>>> = Arc::default();
    let sent = Arc::clone(&open);
    tokio::spawn(async move {
        let (mut taken, mut batch) = (Vec::new(), Vec::new());
        while waiting.recv_many(&mut taken, CALLS).await > 0 {
            {
                let mut open = sent.lock().unwrap_or_else(PoisonError::into_inner);
                for call in taken.drain(..) {
                    batch.extend_from_slice(&call.message);
                    open.push_back(call.done);
                }
            }
            if send.write_all(&batch).await.is_err() {
                return;
            }
            batch.clear();
        }
    });
    tokio::spawn(async move {
        let mut got = 0;
        while let Ok(Some(chunk)) = receive.read_chunk(1 << 20, true).await {
            got += chunk.bytes.len();
            let done: Vec<_> = {
                let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
                let answered = (got / CALL).min(open.len());
                open.drain(..answered).collect()
            };
            got %= CALL;
            for done in done {
                // The caller may have been dropped.
                let _ = done.send(());
            }
        }
    });
    Ok(calls)
}

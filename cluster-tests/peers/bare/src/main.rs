//! The ceiling: quinn and nothing else, doing by hand what the others do for their programs.
//!
//! `bare` has Purlin's socket buffers and window; `PEER_BARE=defaults` leaves quinn's. It batches
//! as well as one can: a sender fills 64 KiB before it writes, callers share one stream whose
//! writer takes all that waits. There are no processes, no mailboxes, no names and no client
//! certificates. Frames are a length and that many bytes; a stream's first byte says its kind.

mod near;
mod settings;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use bytes::{Buf, BytesMut};
use meter::{Ground, Missing, System, Task, Workload};
use quinn::{RecvStream, SendStream};

use crate::near::{Line, Near};
use crate::settings::Settings;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What comes on a stream.
const ECHO: u8 = 0;
/// Frames to count; an empty one asks for the counts.
const COUNT: u8 = 1;

const HEADER: usize = 4;

impl System for Near {
    type Target = Line;

    const SENDERS_WAIT: bool = true;

    fn about() -> String {
        let settings = Settings::from_environment();
        format!("{}; TLS 1.3 without client certificates; mimalloc", settings.about())
    }

    fn supports(task: Task) -> Result<(), Missing> {
        match task.workload {
            Workload::Monitors | Workload::SpawnExit => Err(Missing("it has no processes")),
            Workload::Overload => Err(Missing("it has no receivers that can be slow")),
            _ => Ok(()),
        }
    }

    async fn serve(_: Ground, tell: impl FnOnce(String) + Send) -> Result<()> {
        let (endpoint, certificate) = Settings::from_environment().server()?;
        let digits: Vec<_> = certificate.iter().map(|byte| format!("{byte:02x}")).collect();
        tell(format!("{} {}", endpoint.local_addr()?, digits.concat()));
        let connection = endpoint.accept().await.context("closed")?.await?;
        let total = Arc::new(AtomicU64::new(0));
        while let Ok((send, receive)) = connection.accept_bi().await {
            let total = Arc::clone(&total);
            // Ends with the connection.
            tokio::spawn(async move { drop(answer(send, receive, total).await) });
        }
        Ok(())
    }

    async fn join(ground: Ground, contact: String) -> Result<Self> {
        Self::connect(&ground, &contact).await
    }

    async fn targets(&self, count: usize) -> Result<Vec<Line>> {
        self.lines(count).await
    }

    /// All of them are one stream here.
    async fn fan_out(&self, targets: &mut Vec<Line>, message: &bytes::Bytes) -> Result<()> {
        for target in targets {
            target.write(message).await?;
        }
        Ok(())
    }
}

async fn answer(
    mut send: SendStream,
    mut receive: RecvStream,
    total: Arc<AtomicU64>,
) -> Result<()> {
    let mut kind = [0];
    receive.read_exact(&mut kind).await?;
    if kind[0] == ECHO {
        while let Some(chunk) = receive.read_chunk(1 << 20, true).await? {
            send.write_chunk(chunk.bytes).await?;
        }
        return Ok(());
    }
    let mut count = 0_u64;
    let mut buffer = BytesMut::new();
    // Bytes of a frame that are still to come and need not be kept.
    let mut skip = 0_usize;
    while let Some(chunk) = receive.read_chunk(1 << 20, true).await? {
        let mut bytes = chunk.bytes;
        let skipped = skip.min(bytes.len());
        bytes.advance(skipped);
        skip -= skipped;
        if skipped > 0 && skip == 0 {
            count += 1;
            total.fetch_add(1, Ordering::Relaxed);
        }
        buffer.extend_from_slice(&bytes);
        let before = count;
        while buffer.len() >= HEADER {
            let length = u32::from_le_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]) as usize;
            if length == 0 {
                buffer.advance(HEADER);
                let all = total.load(Ordering::Relaxed) + count - before;
                let mut counts = count.to_le_bytes().to_vec();
                counts.extend(all.to_le_bytes());
                send.write_all(&counts).await?;
                continue;
            }
            if buffer.len() < HEADER + length {
                if length > 1 << 20 {
                    skip = HEADER + length - buffer.len();
                    buffer.clear();
                }
                break;
            }
            buffer.advance(HEADER + length);
            count += 1;
        }
        total.fetch_add(count - before, Ordering::Relaxed);
    }
    Ok(())
}

fn main() -> ExitCode {
    meter::main::<Near>()
}

//! Numbered messages and who takes them: shows what was lost, doubled, reordered or spoiled.

use std::time::{Duration, Instant};

use purlin::prelude::*;

/// A numbered message with a body.
#[derive(Debug, Serialize, Deserialize)]
pub struct Numbered {
    number: u64,
    #[serde(with = "serde_bytes")]
    body: Vec<u8>,
}

impl Numbered {
    pub fn new(number: u64, size: usize) -> Self {
        Self { number, body: vec![number.to_le_bytes()[0]; size] }
    }
}

impl Message for Numbered {
    const NAME: &'static str = "numbered.message";
    type Reply = ();
}

/// What has come so far: the first and last of each run of numbers without a gap. All of `n` in
/// order is `[(0, n - 1)]`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report;

impl Message for Report {
    const NAME: &'static str = "numbered.report";
    type Reply = Vec<(u64, u64)>;
}

/// Takes numbered messages; a spoiled one ends it.
#[derive(Default)]
pub struct Receiver {
    runs: Vec<(u64, u64)>,
}

impl Actor for Receiver {
    const KIND: &'static str = "numbered.receiver";
    type Args = ();
    type Messages = (Numbered, Report);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self::default())
    }
}

impl Handler<Numbered> for Receiver {
    async fn handle(
        &mut self,
        Numbered { number, body }: Numbered,
        _: &mut Context<Self>,
    ) -> Outcome {
        assert!(body.iter().all(|byte| *byte == number.to_le_bytes()[0]), "{number} is spoiled");
        match self.runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => self.runs.push((number, number)),
        }
        Ok(())
    }
}

impl Handler<Report> for Receiver {
    async fn handle(&mut self, _: Report, _: &mut Context<Self>) -> Outcome<Vec<(u64, u64)>> {
        Ok(self.runs.clone())
    }
}

/// Sends these numbers, each of its size, waiting while the way is full.
pub async fn send(to: &Ref<Receiver>, numbers: std::ops::Range<u64>, size: impl Fn(u64) -> usize) {
    for number in numbers {
        to.send_wait(Numbered::new(number, size(number))).await;
    }
}

/// Waits until the message of this number has come, then tells the runs.
pub async fn until_came(at: &Ref<Receiver>, number: u64, limit: Duration) -> Vec<(u64, u64)> {
    let begun = Instant::now();
    loop {
        let runs = at.call(Report).await.unwrap();
        let came = runs.iter().any(|(first, last)| (*first..=*last).contains(&number));
        if came {
            return runs;
        }
        assert!(begun.elapsed() < limit, "waited for {number}; came {runs:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
